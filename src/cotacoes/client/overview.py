"""What quote_service told of many coins in one answer: each coin's part is read by itself, and what it did not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from cotacoes.errors import BadRequestError, ProblemError, ServiceUnavailableError, problem_types
from cotacoes.model.payloads import CurrentJson, MeanJson, Progress

T = TypeVar("T")
_NOT_EXTRA = frozenset({"type", "title", "status", "detail", "retry_after_s", "self"})


@dataclass(frozen=True)
class Overview:
    """What quote_service answered about many coins: each part by coin, and each error by `COIN.PART`."""

    current: Mapping[str, CurrentJson]
    mean: Mapping[str, MeanJson]
    position: Mapping[str, Progress]
    problems: Mapping[str, ProblemError]


class _Problem(msgspec.Struct, frozen=True):
    type: str
    detail: str
    status: int
    retry_after_s: float | None = None


class OverviewAnswer(msgspec.Struct, frozen=True):
    """The answer; each coin's part is read by itself, so that one that is malformed costs no other."""

    problems: dict[str, _Problem]
    current: dict[str, Any] = {}
    mean: dict[str, Any] = {}
    position: dict[str, Any] = {}


def read_overview(answer: OverviewAnswer, problems: Mapping[str, Mapping[str, Any]]) -> Overview:
    """The parts that are what they should be; of the others, that they are not."""
    told = {
        name: read_problem(problems[name], problem.status, problem.retry_after_s)
        for name, problem in answer.problems.items()
    }

    def read(part: str, values: Mapping[str, Any], parse: Callable[[str, Any], T]) -> dict[str, T]:
        parsed = {}
        for coin, value in values.items():
            try:
                parsed[coin] = parse(coin, value)
            except ValueError:  # msgspec's own are that too
                told[f"{coin}.{part}"] = ServiceUnavailableError(f"quote_service answered no valid {part} of {coin}")
        return parsed

    return Overview(
        read("current", answer.current, lambda coin, value: msgspec.convert(value, CurrentJson).checked(coin)),
        read("mean", answer.mean, lambda coin, value: msgspec.convert(value, MeanJson).checked(coin)),
        read("position", answer.position, lambda _, value: msgspec.convert(value, Progress).checked()),
        told,
    )


def plain(answer: msgspec.Struct) -> dict[str, Any]:
    """Its fields, and no other that came with them."""
    fields: dict[str, Any] = msgspec.to_builtins(answer)
    return fields


def read_problem(told: Mapping[str, Any], status: int, wait_s: float | None = None) -> ProblemError:
    """The error that the service raised, from what it told of it; `wait_s` is the wait it asked for."""
    slug = str(told.get("type", "")).rpartition("#")[2]
    unknown = BadRequestError if status < 500 else ServiceUnavailableError
    kind: type[ProblemError] = next((kind for kind in problem_types() if kind.slug == slug), unknown)
    extra = {name: value for name, value in told.items() if name not in _NOT_EXTRA}
    return kind(str(told.get("detail", "")), **({} if wait_s is None else {"retry_after_s": wait_s}), **extra)
