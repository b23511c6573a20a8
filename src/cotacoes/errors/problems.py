"""What a caller sees: each has a slug, a title and a status, and a docstring that `/docs` shows."""

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


class MalformedRequestError(RequestError):
    """The request is not HTTP/1.1 as this service reads it, or does not name exactly one host; the connection ends."""

    slug, title, status = "malformed-request", "Malformed request", 400


class MisdirectedRequestError(RequestError):
    """The request names a host that is not one of this service's: a loopback name, `COTACOES_HOST` and those of
    `COTACOES_ALLOWED_HOSTS` are."""

    slug, title, status = "misdirected-request", "Misdirected request", 421


class HeadersTooLargeError(RequestError):
    """The request line and the headers are larger than any that this service takes."""

    slug, title, status = "headers-too-large", "Headers too large", 431


class RequestTimeoutError(RequestError):
    """The request, or the rest of it, did not come in time."""

    slug, title, status = "request-timeout", "Request timeout", 408


class UnauthorizedError(RequestError):
    """The route needs `Authorization: Bearer` with the admin token; `cotacoes env` prints it."""

    slug, title, status = "unauthorized", "Unauthorized", 401


class ForbiddenError(RequestError):
    """Pages of this origin may not read the stream: only our own and those of `COTACOES_ALLOWED_ORIGINS` may."""

    slug, title, status = "forbidden", "Forbidden", 403


class PositionBeyondEndError(RequestError):
    """The position in `after` was never given to this coin. `last` is the newest position of the coin.

    If later quotes exist, `resume` is the position to ask after instead to get them all, null for all from the first.
    """

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
    """A shard is away or did not answer in time, takes no writes, or is of another schema version or another shard."""

    slug, title, status = "shard-unavailable", "Shard unavailable", 503


class ShardTimedOutError(ShardUnavailableError):
    """A shard did not answer by the deadline; what was asked of it may have been too much at once."""


class BusUnavailableError(UnavailableError):
    """Redis did not answer in time."""

    slug, title, status = "bus-unavailable", "Redis unavailable", 503


class BusTimedOutError(BusUnavailableError):
    """Redis did not answer by the deadline; what was published may have been heard all the same."""


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


def problem_types(kind: type[ProblemError] = ProblemError) -> Iterator[type[ProblemError]]:
    """Every error that can reach a caller."""
    for child in kind.__subclasses__():
        if "slug" in vars(child):
            yield child
        yield from problem_types(child)
