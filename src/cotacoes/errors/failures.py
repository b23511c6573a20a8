"""What no caller sees: a call, a source, a copy or a shard that failed; whoever asked says what that means."""

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
