"""Deadline: the moment by which a piece of work is over, together with all calls that it makes.

A deadline is a point in time and not a duration, so it does not begin again with each step. Within its `scope` it is
the current deadline of the task and of the tasks that it starts; a nested deadline never outlives it. The next service
receives it as `X-Deadline-Ms`, the whole milliseconds left, since two machines share no clock.
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
    """The caller's own deadline has passed. That says nothing about the upstream."""


class Deadline:
    """A moment: `at` is in seconds of `clock`, which is monotonic."""

    __slots__ = ("_clock", "at")

    def __init__(self, at: float, clock: Callable[[], float]) -> None:
        self.at = at
        self._clock = clock

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float]) -> Self:
        """The deadline in so many seconds, or the current deadline if that is earlier."""
        deadline, outer = cls(clock() + seconds, clock), _current.get()
        if outer is not None:
            same = outer._clock == clock
            deadline.at = min(outer.at if same else clock() + outer.remaining(), deadline.at)
        return deadline

    @classmethod
    def of_header(cls, text: str, clock: Callable[[], float]) -> Self:
        """The deadline that `X-Deadline-Ms` sets; ValueError if it is not a whole number of milliseconds."""
        if not (text.isascii() and text.isdigit() and len(text) <= HEADER_DIGITS_MAX):
            raise ValueError("X-Deadline-Ms must be the whole number of milliseconds left")
        return cls(clock() + int(text) / 1000, clock)

    def remaining(self) -> float:
        """The seconds left, never below 0."""
        return max(0.0, self.at - self._clock())

    def to_header(self) -> str:
        """The value of `X-Deadline-Ms`, rounded down so that the upstream does not end later than its caller."""
        return header_of(self.remaining())

    def scope(self) -> DeadlineScope:
        """A context manager that makes this the current deadline, even if the outer one is earlier.

        So a call with a time of its own, such as a shared one, is not cut short by a caller in a hurry.
        """
        return DeadlineScope(self)

    def enforced(self) -> EnforcedDeadline:
        """An async context manager: a `scope` whose body is cancelled when the time is up, or is not begun."""
        return EnforcedDeadline(self)


def header_of(seconds: float) -> str:
    """The value of `X-Deadline-Ms` for so many seconds, within its limit of digits."""
    return str(int(min(seconds * 1000, _HEADER_MAX)))


class DeadlineScope:
    """The context of `Deadline.scope`. A generator would cost more around every call."""

    __slots__ = ("_deadline", "_token")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __enter__(self) -> None:
        self._token = _current.set(self._deadline)

    def __exit__(self, *_: object) -> None:
        _leave(self._token)


class EnforcedDeadline:
    """The context of `Deadline.enforced`. Raises CallDeadlineError if it ended its body."""

    __slots__ = ("_deadline", "_limit", "_token")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    async def __aenter__(self) -> None:
        left = self._deadline.remaining()
        if left == 0:
            raise CallDeadlineError("the deadline has passed")
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
            raise CallDeadlineError("the deadline has passed") from without_timer(over)
        finally:
            del limit  # as in `without_timer`


def _leave(token: contextvars.Token[Deadline | None]) -> None:
    try:
        _current.reset(token)
    except ValueError:
        return  # an abandoned coroutine is closed in another context, in which it set nothing


def without_timer(error: TimeoutError) -> TimeoutError:
    """The error of an `asyncio.timeout` without its own frame; its cause shows where the time was spent.

    The timer holds the task, and the task may end with an error that holds the timer. That cycle would keep every frame
    of a call that timed out until the garbage collector runs.
    """
    return error.with_traceback(None)


def current_deadline() -> Deadline | None:
    """The deadline of the innermost scope; None outside any scope."""
    return _current.get()
