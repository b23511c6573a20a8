"""The error tree: the type says who is to blame and whether trying again helps.

    CotacoesError
    ├── SettingError              the operator's: a setting, a port or a data folder; the message names the fix
    ├── OutputError               standard output cannot be written
    ├── RequestError              the caller's: sending the same request again will not help
    │   ├── UnknownCoinError          404
    │   ├── NotFoundError             404
    │   ├── BadRequestError           422
    │   ├── MalformedRequestError     400
    │   ├── MethodNotAllowedError     405
    │   ├── RequestTimeoutError       408
    │   ├── TooLargeError             413
    │   ├── MisdirectedRequestError   421
    │   ├── HeadersTooLargeError      431
    │   ├── UnauthorizedError         401
    │   ├── ForbiddenError            403
    │   ├── PositionBeyondEndError    409
    │   ├── PositionGoneError         410
    │   └── CursorGoneError           410
    ├── UnavailableError          nobody's: try again after `retry_after_s`
    │   ├── NoQuoteError              503, no quote yet, or only old ones
    │   ├── HistoryUnavailableError   503, the log does not cover the request and the shard is unavailable
    │   ├── LogUnavailableError       503, the local log cannot be written
    │   ├── ShardUnavailableError     503
    │   │   └── ShardTimedOutError        no answer by the deadline
    │   ├── BusUnavailableError       503
    │   │   └── BusTimedOutError          no answer by the deadline
    │   ├── ServiceUnavailableError   503, an upstream is unreachable
    │   │   └── TimedOutError             or did not answer in time
    │   ├── OverloadedError           503
    │   └── DeadlineExceededError     504
    ├── InternalError             500, a bug in the service
    ├── HttpError                 a call over HTTP brought no answer; the caller says what that means
    │   ├── HttpUnavailableError      no connection, past the deadline, or cut
    │   └── HttpMalformedError        an answer that is too large or encoded
    ├── StreamError               a WebSocket has ended; its reader decides whether to connect again
    │   ├── StreamUnavailableError    no connection, cut, or silent
    │   ├── StreamRefusedError        the handshake was answered with another status
    │   ├── StreamClosedError         the other side closed it and gave a reason
    │   └── StreamMalformedError      not the expected stream, or a gap that was not announced
    ├── StaleQuote                the newest quote is older than the caller allows
    ├── SourceError               the external source's: a fetch brought nothing
    │   ├── SourceUnavailableError    no answer, or one that says to try later
    │   ├── SourceMalformedError      an answer that is not a quote
    │   └── SourceGoneError           its tape does not reach back to our cursor
    ├── FrameError                a frame of an exchange cannot be read; it is counted and skipped
    ├── CopyError                 a shard's copy of a coin, during a move or left behind by one
    │   ├── CopyRefusedError          it is not in the state that this step needs
    │   └── CopyDiffersError          it differs from the other copy
    └── ShardRefusedError         the coin's fence refused a batch
        ├── CoinMovedError            go to the shard that it names, or read the directory again
        ├── WriterSupersededError     a newer writer took over: stop
        ├── FenceClosedError          keep the batch in the log and try again
        └── ShardRewoundError         the shard was restored from a backup: ask for its position

`/docs` shows the docstring of each error that reaches a caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self, TypeVar

E = TypeVar("E", bound=Exception)


class CotacoesError(Exception):
    """Any error of this project."""


class SettingError(CotacoesError):
    """A setting, a port or a data folder cannot be used; the message names it, the problem and the fix."""


class OutputError(CotacoesError):
    """Standard output cannot be written, for another reason than that its reader has left."""

    @classmethod
    def of(cls, error: OSError) -> Self:
        """The error with the system's reason."""
        return cls(f"standard output cannot be written ({error.strerror})")


# What a caller of a service sees


class ProblemError(CotacoesError):
    """An error that a caller sees, as `application/problem+json` (RFC 9457)."""

    slug: ClassVar[str]
    title: ClassVar[str]
    status: int

    def __init__(self, detail: str, *, retry_after_s: float | None = None, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.extra = extra


class RequestError(ProblemError):
    """The request cannot be answered as it is; sending it again will not help."""


class UnknownCoinError(RequestError):
    """The coin is not quoted here. `did_you_mean` lists the nearest names."""

    slug, title, status = "unknown-coin", "Unknown coin", 404


class NotFoundError(RequestError):
    """The route does not exist. `/docs` lists all routes."""

    slug, title, status = "not-found", "Not found", 404


class BadRequestError(RequestError):
    """A parameter, a header or the body is invalid. `detail` names it and says what is allowed."""

    slug, title, status = "bad-request", "Bad request", 422


class MethodNotAllowedError(RequestError):
    """The route exists, but does not support this method. The header `Allow` lists the methods that it supports."""

    slug, title, status = "method-not-allowed", "Method not allowed", 405


class UpgradeRequiredError(RequestError):
    """The route is a WebSocket. A proxy in between must pass the headers `Upgrade` and `Connection` on."""

    slug, title, status = "upgrade-required", "Upgrade required", 426


class TooLargeError(RequestError):
    """The request's body is larger than this service accepts."""

    slug, title, status = "too-large", "Request too large", 413


class MalformedRequestError(RequestError):
    """The request is not valid HTTP/1.1, or does not name exactly one host. The connection is closed."""

    slug, title, status = "malformed-request", "Malformed request", 400


class MisdirectedRequestError(RequestError):
    """The request names a host that is not this service's. Allowed are loopback names, `COTACOES_HOST` and the names
    in `COTACOES_ALLOWED_HOSTS`."""

    slug, title, status = "misdirected-request", "Misdirected request", 421


class HeadersTooLargeError(RequestError):
    """The request line and the headers are larger than this service accepts."""

    slug, title, status = "headers-too-large", "Headers too large", 431


class RequestTimeoutError(RequestError):
    """The request did not arrive completely in time."""

    slug, title, status = "request-timeout", "Request timeout", 408


class UnauthorizedError(RequestError):
    """The route requires `Authorization: Bearer` with the admin token, which `cotacoes env` prints."""

    slug, title, status = "unauthorized", "Unauthorized", 401


class ForbiddenError(RequestError):
    """Pages of this origin may not read the stream. Allowed are the service's own pages and the origins in
    `COTACOES_ALLOWED_ORIGINS`."""

    slug, title, status = "forbidden", "Forbidden", 403


class PositionBeyondEndError(RequestError):
    """No quote of this coin has had the position in `after`. `last` is the coin's newest position.

    If there are later quotes, `resume` is the position to use as `after` to get them all; null stands for the start.
    """

    slug, title, status = "position-beyond-end", "Position beyond the end", 409


class PositionGoneError(RequestError):
    """The quotes after this position have been deleted. `floor` is the oldest position to continue from."""

    slug, title, status = "position-gone", "Position gone", 410


class CursorGoneError(RequestError):
    """The tape does not know this cursor: it is from an earlier run or too old. `next` is the cursor to start from."""

    slug, title, status = "cursor-gone", "Cursor gone", 410


class UnavailableError(ProblemError):
    """The service cannot answer now: try again after `Retry-After` seconds."""

    def __init__(self, detail: str, *, retry_after_s: float = 1.0, **extra: object) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **extra)


class NoQuoteError(UnavailableError):
    """The coin has no quote yet, or its newest quote is too old to be a price. `reason` says which."""

    slug, title, status = "no-quote", "No quote", 503


class HistoryUnavailableError(UnavailableError):
    """The coin's shard is unavailable and the local log does not cover the request. No partial list is returned."""

    slug, title, status = "history-unavailable", "History unavailable", 503


class LogUnavailableError(UnavailableError):
    """The local log cannot be written (full, at its quota, or damaged), so nothing new is recorded or published."""

    slug, title, status = "log-unavailable", "Log unavailable", 503


class ShardUnavailableError(UnavailableError):
    """A shard is unreachable, did not answer in time, accepts no writes, has another schema version, or is another
    shard than expected."""

    slug, title, status = "shard-unavailable", "Shard unavailable", 503


class ShardTimedOutError(ShardUnavailableError):
    """A shard did not answer by the deadline; the request may have been too much at once."""


class BusUnavailableError(UnavailableError):
    """Redis did not answer in time."""

    slug, title, status = "bus-unavailable", "Redis unavailable", 503


class BusTimedOutError(BusUnavailableError):
    """Redis did not answer by the deadline; messages may have been delivered all the same."""


class ServiceUnavailableError(UnavailableError):
    """The upstream that has the answer is unavailable, or did not answer in time."""

    slug, title, status = "service-unavailable", "Service unavailable", 503


class TimedOutError(ServiceUnavailableError):
    """The upstream is reachable but did not answer in time."""


class InvalidAnswerError(ServiceUnavailableError):
    """The upstream answered, but not as a service of this system does."""


class OverloadedError(UnavailableError):
    """The service is at one of its limits, such as concurrent requests, connections or streams."""

    slug, title, status = "overloaded", "Overloaded", 503


class DeadlineExceededError(UnavailableError):
    """The answer was not ready by the request's deadline, so the request was cancelled."""

    slug, title, status = "deadline-exceeded", "Deadline exceeded", 504


class InternalError(ProblemError):
    """A bug in the service. The service's log has the details under the same `request_id`."""

    slug, title, status = "internal", "Internal error", 500


# What no caller of a service sees: the code that catches one decides what it means


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


StreamCause = Literal["name", "unreachable", "timeout", "tls", "proxy", "handshake", "cut"]


class StreamUnavailableError(StreamError):
    """No connection by the deadline, or one that was cut or fell silent: connecting again may help.

    `cause` is what failed: the lookup of the host's name, the way to it, the time for it, TLS, the proxy, the
    handshake of the WebSocket, or else an open connection.
    """

    def __init__(self, message: str, *, cause: StreamCause = "cut") -> None:
        super().__init__(message)
        self.cause: StreamCause = cause


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


class FrameError(CotacoesError):
    """A frame of an exchange cannot be read; the message says why, without the frame."""


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
    """The shard is behind this writer, as after a restored backup: continue from the shard's position."""


# Functions over errors


def problem_types(kind: type[ProblemError] = ProblemError) -> Iterator[type[ProblemError]]:
    """Every error that can reach a caller."""
    for child in kind.__subclasses__():
        if "slug" in vars(child):
            yield child
        yield from problem_types(child)


def setting_error_in(several: ExceptionGroup[Exception]) -> SettingError | None:
    """The first SettingError of a group, None if it has none."""
    return error_in(several, (SettingError,))


def error_in(error: Exception, kinds: tuple[type[E], ...]) -> E | None:
    """The error if it is of these kinds, or the first such one of a group; None if there is none."""
    if isinstance(error, kinds):
        return error
    inner = error.exceptions if isinstance(error, ExceptionGroup) else ()
    return next((found for one in inner if (found := error_in(one, kinds)) is not None), None)
