"""The words of `cotacoes faults`: KEY=VALUE, added to the current faults.

    error_rate=0.5 latency_ms=300 for_s=20     numbers; `none` removes one
    status=500,503 coins=bitcoin,ethereum      lists; `none` empties one (without coins, all fail)
    hang=0.2 nan=0.1                           kinds, each with its rate; 0 or `none` removes one

external_service checks the ranges.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cotacoes.errors import BadRequestError
from cotacoes.external_service.faults import FaultKind

_WHOLE = frozenset({"latency_ms", "jitter_ms", "retry_after_s"})
_NUMBERS = _WHOLE | {"error_rate", "for_s"}
_NONE = {"retry_after_s": None, "for_s": None}
_LISTS: dict[str, Callable[[str], object]] = {"status": int, "coins": str.lower}
_KINDS = frozenset(kind.value for kind in FaultKind)
FOR_S_LEFT_MIN = 0.001  # 0 s left means that it is about to end, not that it has no end


def merged(current: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The faults with the words applied; BadRequestError names a word that is not a fault."""
    setting = {**current, "kinds": dict(current.get("kinds") or {})}
    if setting.get("for_s") is not None:
        setting["for_s"] = max(setting["for_s"], FOR_S_LEFT_MIN)
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise BadRequestError(f"{word} is not KEY=VALUE, for example error_rate=1; `clear` must stand alone")
        if name in _NUMBERS:
            setting[name] = _NONE.get(name, 0) if text == "none" else _number(name, text)
        elif name in _LISTS:
            setting[name] = [] if text == "none" else _items(name, text)
        elif name in _KINDS:
            setting["kinds"][name] = 0.0 if text == "none" else _number(name, text)
        else:
            raise BadRequestError(f"{name} is not a fault{_nearest(name)}")
    setting["kinds"] = {kind: rate for kind, rate in setting["kinds"].items() if rate}
    return setting


def _number(name: str, text: str) -> float:
    is_whole = name in _WHOLE
    try:
        number = int(text) if is_whole else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRequestError(f"{name}={text} is refused: write {'a whole number' if is_whole else 'a number'}")
    return number


def _items(name: str, text: str) -> list[object]:
    try:
        return [_LISTS[name](item.strip()) for item in text.split(",")]
    except ValueError:
        raise BadRequestError(f"{name}={text} is refused: write {name}=500,503") from None


def _nearest(name: str) -> str:
    known = [*sorted(_NUMBERS), *_LISTS, *sorted(_KINDS)]
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f": did you mean {near[0]}?" if near else f": the faults are {', '.join(known)}"
