"""Deadline: one moment by which all of it is over, the calls made on the way included.

A deadline is a point in time and not a duration, so it does not begin anew with each step. Within its `scope` it is
the current one of the task and of those that the task starts; a nested one never outlives it. It goes to the next
service as `X-Deadline-Ms`, the whole milliseconds that are left, since two machines share no clock.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from types import TracebackType
from typing import Self

HEADER = "x-deadline-ms"
HEADER_DIGITS_MAX = 9  # eleven days
_HEADER_MAX = 10**HEADER_DIGITS_MAX - 1

_current: contextvars.ContextVar[Deadline | None] = contextvars.ContextVar("cotacoes_deadline", default=None)


class CallDeadlineError(TimeoutError):
    """The caller's own time is up. That says nothing about who was called."""


class Deadline:
    """`at` is in seconds of `clock`, which is monotonic."""

    __slots__ = ("_clock", "at")

    def __init__(self, at: float, clock: Callable[[], float]) -> None:
        self.at = at
        self._clock = clock

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float]) -> Self:
        """So many seconds from now, or with the current deadline, where that one is earlier."""
        deadline, outer = cls(clock() + seconds, clock), _current.get()
        if outer is not None:
            same = outer._clock == clock
            deadline.at = min(outer.at if same else clock() + outer.remaining(), deadline.at)
        return deadline

    @classmethod
    def of_header(cls, text: str, clock: Callable[[], float]) -> Self:
        """What `X-Deadline-Ms` leaves; ValueError where it is no whole number of milliseconds."""
        if not (text.isascii() and text.isdigit() and len(text) <= HEADER_DIGITS_MAX):
            raise ValueError("X-Deadline-Ms is the whole number of milliseconds that are left")
        return cls(clock() + int(text) / 1000, clock)

    def remaining(self) -> float:
        """The seconds that are left, never below 0."""
        return max(0.0, self.at - self._clock())

    def to_header(self) -> str:
        """The value of `X-Deadline-Ms`: rounded down, so that the one asked is not the later of the two."""
        return header_of(self.remaining())

    def scope(self) -> DeadlineScope:
        """A context manager: within, it is the current deadline, also where the one outside is earlier.

        So what is begun within and has a time of its own, as a shared call has, is not cut short by a hasty caller.
        """
        return DeadlineScope(self)

    def enforced(self) -> EnforcedDeadline:
        """An async context manager: as `scope`, and what is within is cancelled when the time is up, or not begun."""
        return EnforcedDeadline(self)


def header_of(seconds: float) -> str:
    """The value of `X-Deadline-Ms` that tells so many seconds, or as many as it can."""
    return str(int(min(seconds * 1000, _HEADER_MAX)))


class DeadlineScope:
    """A class and no generator, since it stands around every call."""

    __slots__ = ("_deadline", "_token")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __enter__(self) -> None:
        self._token = _current.set(self._deadline)

    def __exit__(self, *_: object) -> None:
        _leave(self._token)


class EnforcedDeadline:
    """Raises CallDeadlineError where it ended what was within."""

    __slots__ = ("_deadline", "_limit", "_token")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    async def __aenter__(self) -> None:
        left = self._deadline.remaining()
        if left == 0:
            raise CallDeadlineError("the deadline is over")
        self._limit = asyncio.timeout(left)
        await self._limit.__aenter__()
        self._token = _current.set(self._deadline)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _leave(self._token)
        limit = self._limit
        del self._limit
        try:
            await limit.__aexit__(kind, error, trace)
        except TimeoutError as over:
            raise CallDeadlineError("the deadline is over") from without_timer(over)
        finally:
            del limit  # as `without_timer`


def _leave(token: contextvars.Token[Deadline | None]) -> None:
    try:
        _current.reset(token)
    except ValueError:
        return  # a coroutine that nobody awaits any more is closed from outside, where it set nothing


def without_timer(error: TimeoutError) -> TimeoutError:
    """The error of an `asyncio.timeout` without its own frame; where the time was spent, its cause tells.

    The timer holds the task, and the task may end with an error that holds the timer: a cycle, which keeps every frame
    of a call that timed out until the garbage collector comes by.
    """
    return error.with_traceback(None)


def current_deadline() -> Deadline | None:
    """The deadline in whose scope this is; None where there is none."""
    return _current.get()
