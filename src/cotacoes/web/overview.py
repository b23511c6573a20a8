"""The overview: what quote_service knows about many coins, in one answer whose sections are checked coin by coin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from cotacoes.errors import ProblemError, ServiceUnavailableError
from cotacoes.errors.problem_json import read_problem
from cotacoes.model.payloads import CurrentJson, MeanJson, Progress

T = TypeVar("T")


@dataclass(frozen=True)
class Overview:
    """What quote_service answered about many coins: each section by coin, and each error by `COIN.SECTION`."""

    current: Mapping[str, CurrentJson]
    mean: Mapping[str, MeanJson]
    position: Mapping[str, Progress]
    problems: Mapping[str, ProblemError]


class _Problem(msgspec.Struct, frozen=True):
    type: str
    detail: str
    status: int
    retry_after_s: float | None = None


class DecodedOverview(msgspec.Struct, frozen=True):
    """The answer before its sections are checked: one that is malformed does not affect the others."""

    problems: dict[str, _Problem]
    current: dict[str, Any] = {}
    mean: dict[str, Any] = {}
    position: dict[str, Any] = {}


def read_overview(answer: DecodedOverview, problems: Mapping[str, Mapping[str, Any]]) -> Overview:
    """The valid sections; an invalid one becomes a problem."""
    errors = {
        name: read_problem(problems[name], problem.status, problem.retry_after_s)
        for name, problem in answer.problems.items()
    }

    def read(section: str, values: Mapping[str, Any], parse: Callable[[str, Any], T]) -> dict[str, T]:
        parsed = {}
        for coin, value in values.items():
            try:
                parsed[coin] = parse(coin, value)
            except ValueError:  # msgspec's errors are ValueErrors
                error = ServiceUnavailableError(f"quote_service gave no valid {section} for {coin}")
                errors[f"{coin}.{section}"] = error
        return parsed

    return Overview(
        read("current", answer.current, lambda coin, value: msgspec.convert(value, CurrentJson).checked(coin)),
        read("mean", answer.mean, lambda coin, value: msgspec.convert(value, MeanJson).checked(coin)),
        read("position", answer.position, lambda _, value: msgspec.convert(value, Progress).checked()),
        errors,
    )
