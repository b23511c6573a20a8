"""What scatter/gather answers: how every branch of the plan ended, in the order of the plan."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

T = TypeVar("T")


class BranchStatus(enum.StrEnum):
    """How a branch ended, from the best to the worst."""

    OK = "ok"
    STALE = "stale"
    SKIPPED = "skipped"
    REJECTED = "rejected"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"

    @property
    def is_good(self) -> bool:
        """Whether there is a value."""
        return self is BranchStatus.OK or self is BranchStatus.STALE


class Branch(NamedTuple, Generic[T]):
    """One branch's end. `value` where it is ok or stale, `error` where it raised, `reason` in words where it is not ok.

    `started_s` is since the call began; `attempts` are the calls made through a policy, one where there is none.
    `reason` is fit for a caller's eyes: the words of our own errors, of others only the name of their class.
    """

    name: str
    status: BranchStatus
    started_s: float
    elapsed_s: float
    attempts: int
    value: T | None = None
    error: Exception | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class GatherResult(Generic[T]):
    """How every branch of the plan ended, in its order."""

    branches: Mapping[str, Branch[T]]
    elapsed_s: float

    @property
    def total(self) -> int:
        """How many there are in the plan."""
        return len(self.branches)

    @property
    def values(self) -> dict[str, T]:
        """What came, stale or not."""
        return {one.name: cast(T, one.value) for one in self.branches.values() if one.status.is_good}

    @property
    def missing(self) -> list[Branch[T]]:
        """Those of which nothing came."""
        return [one for one in self.branches.values() if not one.status.is_good]

    @property
    def complete(self) -> bool:
        """Whether something came of all."""
        return not self.missing


class IncompleteError(Exception):
    """Fewer good answers than were demanded; `result` has those that came."""

    def __init__(self, result: GatherResult[Any], demanded: int) -> None:
        reasons = "; ".join(f"{branch.name}: {branch.reason}" for branch in result.missing)
        super().__init__(f"{len(result.values)} good answers of {result.total}, {demanded} are demanded ({reasons})")
        self.result = result
