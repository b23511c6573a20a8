"""Errors that no caller of a service sees: a call, stream, source, copy or shard failed. Code that catches one decides
what it means."""

from __future__ import annotations

from cotacoes.errors.root import CotacoesError


class HttpError(CotacoesError):
    """A call over HTTP brought no readable answer. `outcome` is its row in the table of classification."""

    outcome = "unreachable"

    def __init__(self, message: str = "", *, outcome: str | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome or type(self).outcome


class HttpUnavailableError(HttpError):
    """No connection, a connection that was cut, or no complete answer by the deadline: trying again may help."""


class HttpMalformedError(HttpError):
    """The answer is larger than the caller accepts, or encoded although `identity` was requested."""

    outcome = "malformed"


class StreamError(CotacoesError):
    """A WebSocket could not be opened, or has ended."""


class StreamUnavailableError(StreamError):
    """No connection by the deadline, or one that was cut or fell silent: connecting again may help."""


class StreamRefusedError(StreamError):
    """The handshake was answered with `status`; `retry_after_s` is the requested wait, `body` the answer's body."""

    def __init__(self, status: int, *, retry_after_s: float | None = None, body: bytes = b"") -> None:
        super().__init__(f"the server answered {status} instead of opening a WebSocket")
        self.status = status
        self.retry_after_s = retry_after_s
        self.body = body


class StreamClosedError(StreamError):
    """The other side closed the WebSocket with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the server closed the WebSocket with {code}: {reason!r}")
        self.code = code
        self.reason = reason


class StreamMalformedError(StreamError):
    """The messages are not those of the requested stream, or have a gap that was not announced."""


class StaleQuote(CotacoesError):  # noqa: N818  # a name that the public client promises
    """The newest quote of `coin` is `age` seconds old, which is more than the caller allows."""

    def __init__(self, coin: str, age: float) -> None:
        super().__init__(f"{coin}: the newest quote is {age:.3f} s old")
        self.coin = coin
        self.age = age


class SourceError(CotacoesError):
    """A fetch from a source brought nothing usable. `outcome` is its row in the table of classification."""

    outcome = "malformed"


class SourceUnavailableError(SourceError):
    """The source gave no answer in time, or one that says to try later.

    `retry_after_s` is the wait that the source asked for, None if it did not.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, outcome: str = "unavailable") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.outcome = outcome


class SourceMalformedError(SourceError):
    """The source's answer is not a quote: too large, encoded, not JSON, or of another shape."""

    def __init__(self, message: str, *, outcome: str = "malformed") -> None:
        super().__init__(message)
        self.outcome = outcome


class SourceGoneError(SourceError):
    """The source's tape no longer knows our cursor; `cursor` is the one to continue from."""

    outcome = "gone"

    def __init__(self, message: str, *, cursor: str) -> None:
        super().__init__(message)
        self.cursor = cursor


class CopyError(CotacoesError):
    """A shard's copy of a coin prevents a move or a purge; nothing is lost, and no fence was opened."""


class CopyRefusedError(CopyError):
    """A shard's copy of the coin is not in the state that this step needs; nothing was changed."""


class CopyDiffersError(CopyError):
    """Two copies of a coin that must be equal differ; the message says where."""


class ShardRefusedError(CotacoesError):
    """The coin's fence refused a batch."""


class CoinMovedError(ShardRefusedError):
    """The coin does not live on this shard.

    It lives on the shard `to` under `placement` if the fence knows; otherwise the directory has to be read again.
    """

    def __init__(self, message: str, *, to: str | None = None, placement: int | None = None) -> None:
        super().__init__(message)
        self.to = to
        self.placement = placement


class WriterSupersededError(ShardRefusedError):
    """A newer writer has taken over the coin: this one must stop and not start again by itself."""


class FenceClosedError(ShardRefusedError):
    """The fence is closed for a moment: keep the batch in the log and try again."""


class ShardRewoundError(ShardRefusedError):
    """The shard is behind where this writer left it, as after a restored backup: continue from its position."""
