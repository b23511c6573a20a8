"""The errors that a caller sees. Each has a slug, a title and a status, and a docstring that `/docs` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from cotacoes.errors.root import CotacoesError


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


class OverloadedError(UnavailableError):
    """The service is at one of its limits, such as concurrent requests, connections or streams."""

    slug, title, status = "overloaded", "Overloaded", 503


class DeadlineExceededError(UnavailableError):
    """The answer was not ready by the request's deadline, so the request was cancelled."""

    slug, title, status = "deadline-exceeded", "Deadline exceeded", 504


class InternalError(ProblemError):
    """A bug in the service. The service's log has the details under the same `request_id`."""

    slug, title, status = "internal", "Internal error", 500


def problem_types(kind: type[ProblemError] = ProblemError) -> Iterator[type[ProblemError]]:
    """Every error that can reach a caller."""
    for child in kind.__subclasses__():
        if "slug" in vars(child):
            yield child
        yield from problem_types(child)
