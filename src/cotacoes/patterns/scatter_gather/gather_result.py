"""The result of scatter/gather: how every branch of the plan ended, in the order of the plan."""

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
        """Whether the branch has a value."""
        return self is BranchStatus.OK or self is BranchStatus.STALE


class Branch(NamedTuple, Generic[T]):
    """How a branch ended: with a `value` if ok or stale, with an `error` if it raised, with a `reason` if not ok.

    `started_s` counts from the start of the gathering. `attempts` is the number of calls that a policy made, or 1
    without a policy. A caller may see the `reason`: it is the text of our own errors, and of others only the class.
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
        """The number of branches in the plan."""
        return len(self.branches)

    @property
    def values(self) -> dict[str, T]:
        """The values that arrived, stale or not, by branch."""
        return {one.name: cast(T, one.value) for one in self.branches.values() if one.status.is_good}

    @property
    def missing(self) -> list[Branch[T]]:
        """The branches without a value."""
        return [one for one in self.branches.values() if not one.status.is_good]

    @property
    def complete(self) -> bool:
        """Whether every branch has a value."""
        return not self.missing


class IncompleteError(Exception):
    """There are fewer good answers than demanded; `result` has those that arrived."""

    def __init__(self, result: GatherResult[Any], demanded: int) -> None:
        reasons = "; ".join(f"{branch.name}: {branch.reason}" for branch in result.missing)
        super().__init__(f"{len(result.values)} good answers of {result.total}, {demanded} required ({reasons})")
        self.result = result
