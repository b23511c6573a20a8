"""The error tree: who is to blame and whether trying again helps is in the type.

    CotacoesError
    ├── SettingError              the operator's: a setting, a port, a data folder; the message names the fix
    ├── RequestError              the caller's: sending the same again will not help
    │   ├── UnknownCoinError          404
    │   ├── NotFoundError             404
    │   ├── BadRequestError           400, 405, 413, 422
    │   ├── UnauthorizedError         401
    │   ├── PositionBeyondEndError    409
    │   ├── PositionGoneError         410
    │   └── CursorGoneError           410
    ├── UnavailableError          nobody's for now: try again after `retry_after_s`
    │   ├── NoQuoteError              503, no quote yet, or none young enough
    │   ├── HistoryUnavailableError   503, the log does not cover the question and the shard is away
    │   ├── LogUnavailableError       503, the local log cannot be written
    │   ├── ShardUnavailableError     503
    │   ├── BusUnavailableError       503
    │   ├── ServiceUnavailableError   503, a service that is asked is away
    │   │   └── TimedOutError             or too slow
    │   ├── OverloadedError           503
    │   └── DeadlineExceededError     504
    ├── InternalError             ours: a bug; 500
    ├── HttpError                 one call over HTTP brought no answer; whoever called says what that means
    │   ├── HttpUnavailableError      no connection, past the deadline, or cut
    │   └── HttpMalformedError        an answer too large or encoded
    ├── SourceError               the outside world's: one fetch brought nothing
    │   ├── SourceUnavailableError    no answer, or one that says try later
    │   ├── SourceMalformedError      an answer that is not a quote
    │   └── SourceGoneError           its tape does not reach back to where we are
    ├── CopyError                 a copy of a coin, in a move or left behind by one
    │   ├── CopyRefusedError          it is not as this step needs it
    │   └── CopyDiffersError          it is not what the other copy is
    └── ShardRefusedError         the fence's last word
        ├── CoinMovedError            go where it says, or read the directory again
        ├── WriterSupersededError     another writer took over: stop
        └── FenceClosedError          wait in the log

The docstring of an error that reaches a caller is what `/docs` says about its problem type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class CotacoesError(Exception):
    """Any error of this project."""


class SettingError(CotacoesError):
    """A setting, a port or a data folder is not usable; the message names the thing, the problem and the fix."""


class ProblemError(CotacoesError):
    """An error that a caller sees, as `application/problem+json` (RFC 9457)."""

    slug: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, detail: str, *, retry_after_s: float | None = None, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.extra = extra


class RequestError(ProblemError):
    """The request can not be answered as it is; sending it again will not help."""


class UnknownCoinError(RequestError):
    """No such coin is quoted here. `did_you_mean` lists the nearest names, `coins` in `/docs` all of them."""

    slug, title, status = "unknown-coin", "Unknown coin", 404


class NotFoundError(RequestError):
    """There is no such route. `/docs` lists those that exist."""

    slug, title, status = "not-found", "Not found", 404


class BadRequestError(RequestError):
    """A parameter, header or body is not what the route takes; `detail` names it and the allowed values."""

    slug, title, status = "bad-request", "Bad request", 422


class MethodNotAllowedError(RequestError):
    """The route exists, but not for this method; the header `Allow` lists those it takes."""

    slug, title, status = "method-not-allowed", "Method not allowed", 405


class TooLargeError(RequestError):
    """The request's body is larger than any that this service takes."""

    slug, title, status = "too-large", "Request too large", 413


class UnauthorizedError(RequestError):
    """The route needs `Authorization: Bearer` with the admin token; `cotacoes env` prints it."""

    slug, title, status = "unauthorized", "Unauthorized", 401


class PositionBeyondEndError(RequestError):
    """The position in `after` was never given to this coin. Ask after `last`, its newest, or without `after`."""

    slug, title, status = "position-beyond-end", "Position beyond the end", 409


class PositionGoneError(RequestError):
    """The quotes right after this position are no longer held. `floor` is the oldest position that is."""

    slug, title, status = "position-gone", "Position gone", 410


class CursorGoneError(RequestError):
    """The tape does not know this cursor: it is of another run, or was forgotten. `next` is the one to begin with."""

    slug, title, status = "cursor-gone", "Cursor gone", 410


class UnavailableError(ProblemError):
    """Not now: try again after `Retry-After` seconds."""

    def __init__(self, detail: str, *, retry_after_s: float = 1.0, **extra: object) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **extra)


class NoQuoteError(UnavailableError):
    """There is no quote of this coin yet, or none young enough to be called a price. `reason` says which."""

    slug, title, status = "no-quote", "No quote", 503


class HistoryUnavailableError(UnavailableError):
    """The coin's shard is away and the local log does not cover the question. No short list is given instead."""

    slug, title, status = "history-unavailable", "History unavailable", 503


class LogUnavailableError(UnavailableError):
    """The local log can not be written (full, at its quota, or damaged), so nothing new is recorded or published."""

    slug, title, status = "log-unavailable", "Log unavailable", 503


class ShardUnavailableError(UnavailableError):
    """A shard did not answer in time, or is of another schema version."""

    slug, title, status = "shard-unavailable", "Shard unavailable", 503


class BusUnavailableError(UnavailableError):
    """Redis did not answer in time."""

    slug, title, status = "bus-unavailable", "Redis unavailable", 503


class ServiceUnavailableError(UnavailableError):
    """The service that knows the answer is away, or did not answer in time."""

    slug, title, status = "service-unavailable", "Service unavailable", 503


class TimedOutError(ServiceUnavailableError):
    """Who knows the answer is there, or may be, and did not give it in time."""


class OverloadedError(UnavailableError):
    """More requests are under way than this service takes at once."""

    slug, title, status = "overloaded", "Overloaded", 503


class DeadlineExceededError(UnavailableError):
    """The answer was not ready by the request's deadline, so it was given up."""

    slug, title, status = "deadline-exceeded", "Deadline exceeded", 504


class InternalError(ProblemError):
    """A bug of ours. The log of the service has the details, under the same `request_id`."""

    slug, title, status = "internal", "Internal error", 500


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


def problem_types(kind: type[ProblemError] = ProblemError) -> Iterator[type[ProblemError]]:
    """Every error that can reach a caller."""
    for child in kind.__subclasses__():
        if "slug" in vars(child):
            yield child
        yield from problem_types(child)


def setting_error_in(several: ExceptionGroup[Exception]) -> SettingError | None:
    """The first SettingError of a group; None where there is none."""
    for error in several.exceptions:
        found = setting_error_in(error) if isinstance(error, ExceptionGroup) else error
        if isinstance(found, SettingError):
            return found
    return None
