"""What no caller sees: a call, stream, source, copy or shard that failed; whoever asked says what that means."""

from __future__ import annotations

from cotacoes.errors.root import CotacoesError


class HttpError(CotacoesError):
    """A call over HTTP brought no answer that can be read. `outcome` is its row in the table of classification."""

    outcome = "unreachable"

    def __init__(self, message: str = "", *, outcome: str | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome or type(self).outcome


class HttpUnavailableError(HttpError):
    """No connection, no complete answer by the deadline, or the connection was cut: trying again may help."""


class HttpMalformedError(HttpError):
    """The answer is larger than the caller takes, or encoded although `identity` was asked for."""

    outcome = "malformed"


class StreamError(CotacoesError):
    """A WebSocket brings nothing, or nothing more."""


class StreamUnavailableError(StreamError):
    """No connection by the deadline, or it was cut, or fell silent: connecting again may help."""


class StreamRefusedError(StreamError):
    """The handshake was answered with `status`. `retry_after_s` is the wait it asked for, `body` what it said."""

    def __init__(self, status: int, *, retry_after_s: float | None = None, body: bytes = b"") -> None:
        super().__init__(f"answered {status}, not with a WebSocket")
        self.status = status
        self.retry_after_s = retry_after_s
        self.body = body


class StreamClosedError(StreamError):
    """The other side closed it with this code, for this reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code}: {reason!r}")
        self.code = code
        self.reason = reason


class StreamMalformedError(StreamError):
    """What came is not the stream that was asked for, or shows a hole that nobody told of."""


class StaleQuote(CotacoesError):  # noqa: N818  # a name that the public client promises
    """There is no quote of `coin` as young as the caller wants it; the newest is `age` seconds old."""

    def __init__(self, coin: str, age: float) -> None:
        super().__init__(f"{coin}: nothing newer for {age:.3f} s")
        self.coin = coin
        self.age = age


class SourceError(CotacoesError):
    """One fetch from a source brought nothing usable. `outcome` is its row in the table of classification."""

    outcome = "malformed"


class SourceUnavailableError(SourceError):
    """The source gave no answer in time, or one that says to try later.

    `retry_after_s` is the wait the source asked for, None where it asked for none.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, outcome: str = "unavailable") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.outcome = outcome


class SourceMalformedError(SourceError):
    """The source answered with something that is not a quote: too large, encoded, not JSON, or of another shape."""

    def __init__(self, message: str, *, outcome: str = "malformed") -> None:
        super().__init__(message)
        self.outcome = outcome


class SourceGoneError(SourceError):
    """The source's tape does not know our cursor any more; `cursor` is the one to go on with."""

    outcome = "gone"

    def __init__(self, message: str, *, cursor: str) -> None:
        super().__init__(message)
        self.cursor = cursor


class CopyError(CotacoesError):
    """A shard's copy of a coin stands in the way of a move or of a purge; nothing is lost, and nothing was opened."""


class CopyRefusedError(CopyError):
    """A shard's copy of the coin is not as this step needs it; nothing was changed."""


class CopyDiffersError(CopyError):
    """Two copies of a coin that must be the same are not; the message says where."""


class ShardRefusedError(CotacoesError):
    """The coin's fence refused a batch."""


class CoinMovedError(ShardRefusedError):
    """The coin is not at home on this shard.

    It lives on the shard `to` under `placement`, where the fence knows; else the directory has to be read again.
    """

    def __init__(self, message: str, *, to: str | None = None, placement: int | None = None) -> None:
        super().__init__(message)
        self.to = to
        self.placement = placement


class WriterSupersededError(ShardRefusedError):
    """A newer writer has taken the coin over: stop, and do not come back by yourself."""


class FenceClosedError(ShardRefusedError):
    """The fence is closed for a moment: keep the batch in the log and try again."""


class ShardRewoundError(ShardRefusedError):
    """The shard is not where this writer left it, as after the restore of a backup: ask where it is, go on there."""
