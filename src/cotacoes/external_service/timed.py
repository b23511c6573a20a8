"""A setting with an end: what is set for a while, and what is in force before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Protocol, Self, TypeVar

from pydantic import Field

ForS = Annotated[
    Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False, strict=True)] | None,
    Field(description="how long this is in force; in an answer: the time left"),
]


class Timed(Protocol):
    """A setting that is in force for `for_s` seconds, or until the next one."""

    @property
    def for_s(self) -> float | None: ...

    def model_copy(self, *, update: Mapping[str, Any]) -> Self: ...


SettingT = TypeVar("SettingT", bound=Timed)


class InForce(Generic[SettingT]):
    """The setting in force: the last one with `for_s` until its time is over, otherwise the last one without.

    `clock` gives monotonic seconds; `on_end` is called once when a setting has ended.
    """

    def __init__(
        self, lasting: SettingT, *, clock: Callable[[], float], on_end: Callable[[SettingT], None] = lambda _: None
    ) -> None:
        self._lasting = lasting
        self._passing: SettingT | None = None
        self._passing_until = 0.0
        self._clock = clock
        self._on_end = on_end

    def set(self, setting: SettingT) -> None:
        """Replace the setting in force."""
        if setting.for_s is None:
            self._lasting, self._passing = setting, None
        else:
            self._passing, self._passing_until = setting, self._clock() + setting.for_s

    def current(self) -> SettingT:
        """The setting in force."""
        if self._passing is not None and self._clock() >= self._passing_until:
            ended, self._passing = self._passing, None
            self._on_end(ended)
        return self._passing or self._lasting

    def shown(self) -> SettingT:
        """The setting in force, with what is left of `for_s`."""
        setting = self.current()
        if setting.for_s is None:
            return setting
        return setting.model_copy(update={"for_s": round(max(0.0, self._passing_until - self._clock()), 3)})
