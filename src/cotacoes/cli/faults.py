"""The words of `cotacoes faults`: KEY=VALUE, added to the current faults.

    error_rate=0.5 latency_ms=300 for_s=20     numbers; `none` removes one
    status=500,503 coins=bitcoin,ethereum      lists; `none` empties one (without coins, all fail)
    hang=0.2 nan=0.1                           kinds, each with its rate; 0 or `none` removes one
    kraken.lie=0.10 binance.stall=1            of a simulated venue; 0 or `none` removes one
    market.shock=0.7 peg.USDT=0.90             of the market of all simulated venues

`for_s` holds for all that the same command names. external_service checks the ranges.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cotacoes.errors import BadRequestError
from cotacoes.external_service.faults import FaultKind
from cotacoes.external_service.venues.faults import MarketShock, VenueFaults

SOURCE, MARKET, PEG = "source", "market", "peg"
FOR_S_LEFT_MIN = 0.001  # 0 s left means that it is about to end, not that it has no end

Setting = Mapping[str, Any]

_WHOLE = frozenset({"latency_ms", "jitter_ms", "retry_after_s", "refuse"})
_NUMBERS = frozenset({"latency_ms", "jitter_ms", "retry_after_s", "error_rate", "for_s"})
_NONE = {"retry_after_s": None, "for_s": None}
_LISTS: dict[str, Callable[[str], object]] = {"status": int, "coins": str.lower}
_KINDS = frozenset(kind.value for kind in FaultKind)
_DEFAULTS: dict[str, Setting] = {MARKET: MarketShock().model_dump(mode="json")}
_VENUE_DEFAULTS: Setting = VenueFaults().model_dump(mode="json")
_FLAGS = frozenset(name for name, value in _VENUE_DEFAULTS.items() if value is False)
_TEXTS = frozenset({"half", "clock"})
_EXACT = frozenset({"lie", "shock"})  # their digits are passed on as they stand
_TRUTHS = {"1": True, "true": True, "0": False, "false": False, "none": False}


def merged_all(current: Mapping[str, Setting], words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings that the words change, by target: SOURCE, MARKET or a venue; `current` has all of them.

    BadRequestError names a word that is not a fault.
    """
    by_target: dict[str, list[str]] = {}
    for word in words:
        _split(word)
        target, local = _target(word, current)
        by_target.setdefault(target, []).append(local)
    common = [word for word in by_target.get(SOURCE, ()) if word.startswith("for_s=")]
    if common and len(by_target) > 1 and len(common) == len(by_target[SOURCE]):
        del by_target[SOURCE]  # only the others' time is meant
    return {
        target: merged(current[SOURCE], local)
        if target == SOURCE
        else _merged_simulated(target, current[target], [*common, *local])
        for target, local in by_target.items()
    }


def merged(current: Setting, words: Sequence[str]) -> dict[str, Any]:
    """The source's faults with the words applied; BadRequestError names a word that is not a fault."""
    setting = _with_time_left({**current, "kinds": dict(current.get("kinds") or {})})
    for word in words:
        name, text = _split(word)
        if name in _NUMBERS:
            setting[name] = _NONE.get(name, 0) if text == "none" else _number(name, text)
        elif name in _LISTS:
            setting[name] = [] if text == "none" else _items(name, text)
        elif name in _KINDS:
            setting["kinds"][name] = 0.0 if text == "none" else _number(name, text)
        else:
            raise BadRequestError(
                f"{name} is not a fault{_nearest(name, [*sorted(_NUMBERS), *_LISTS, *sorted(_KINDS)])}"
            )
    setting["kinds"] = {kind: rate for kind, rate in setting["kinds"].items() if rate}
    return setting


def no_faults(current: Mapping[str, Setting]) -> dict[str, dict[str, Any]]:
    """The settings, by target, that remove all faults."""
    return {target: {} for target, setting in current.items() if target == SOURCE or _altered(target, setting)}


def fault_lines(current: Mapping[str, Setting]) -> Iterator[str]:
    """The faults as `cotacoes faults` accepts them: those of the source, then what simulated venues alter."""
    for target, setting in current.items():
        if target == SOURCE:
            yield from _source_lines(setting)
        else:
            for name, value in _altered(target, setting).items():
                if name == "peg":
                    yield from (f"{PEG}.{currency}={worth}" for currency, worth in value.items())
                else:
                    yield f"{target}.{name}={_text(value)}"


def _target(word: str, current: Mapping[str, Setting]) -> tuple[str, str]:
    """The target of a word, and the word without it."""
    key, _, _ = word.partition("=")
    prefix, dot, _ = key.partition(".")
    if not dot:
        return SOURCE, word
    if MARKET not in current:
        raise BadRequestError(f"{key} is not a fault here: the source has no simulated venues")
    if prefix == PEG:
        return MARKET, word
    known = [target for target in current if target != SOURCE]
    if prefix not in known:
        raise BadRequestError(f"{prefix} is not a simulated venue{_nearest(prefix, [*known, PEG])}")
    return prefix, word.removeprefix(f"{prefix}.")


def _merged_simulated(target: str, current: Setting, words: Sequence[str]) -> dict[str, Any]:
    defaults = _DEFAULTS.get(target, _VENUE_DEFAULTS)
    setting = _with_time_left(dict(current))
    for word in words:
        name, text = _split(word)
        if target == MARKET and name.startswith(f"{PEG}."):
            currency = name.removeprefix(f"{PEG}.").upper()
            pegs = {other: worth for other, worth in setting["peg"].items() if other != currency}
            setting["peg"] = pegs if text == "none" else {**pegs, currency: _exact(name, text)}
        elif name not in defaults or name == "peg":
            known = [other for other in defaults if other != "peg"]
            raise BadRequestError(f"{target}.{name} is not a fault{_nearest(name, known)}")
        else:
            setting[name] = _value(f"{target}.{name}", name, text, defaults[name])
    return setting


def _value(shown: str, name: str, text: str, default: object) -> object:
    if name in _FLAGS:
        if text not in _TRUTHS:
            raise BadRequestError(f"{shown}={text} is refused: write 1 or 0")
        return _TRUTHS[text]
    if text == "none":
        return default
    if name in _LISTS:
        return [_LISTS[name](item.strip()) for item in text.split(",")]
    if name in _TEXTS:
        return text
    return _exact(shown, text) if name in _EXACT else _number(shown, text, is_whole=name in _WHOLE)


def _with_time_left(setting: dict[str, Any]) -> dict[str, Any]:
    if setting.get("for_s") is not None:
        setting["for_s"] = max(setting["for_s"], FOR_S_LEFT_MIN)
    return setting


def _split(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if not equals:
        raise BadRequestError(f"{word} is not KEY=VALUE, for example error_rate=1; `clear` must stand alone")
    return name, text


def _number(name: str, text: str, *, is_whole: bool | None = None) -> float:
    is_whole = name in _WHOLE if is_whole is None else is_whole
    try:
        number = int(text) if is_whole else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRequestError(f"{name}={text} is refused: write {'a whole number' if is_whole else 'a number'}")
    return number


def _exact(name: str, text: str) -> str:
    _number(name, text, is_whole=False)
    return text


def _items(name: str, text: str) -> list[object]:
    try:
        return [_LISTS[name](item.strip()) for item in text.split(",")]
    except ValueError:
        raise BadRequestError(f"{name}={text} is refused: write {name}=500,503") from None


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f": did you mean {near[0]}?" if near else f": the names are {', '.join(known)}"


def _altered(target: str, setting: Setting) -> dict[str, Any]:
    """The fields that are not the defaults, with `for_s` if there is any."""
    defaults = _DEFAULTS.get(target, _VENUE_DEFAULTS)
    altered = {name: value for name, value in setting.items() if value != defaults.get(name) and name != "for_s"}
    return {**altered, "for_s": setting.get("for_s")} if altered else {}


def _source_lines(setting: Setting) -> Iterable[str]:
    for name, value in setting.items():
        if name == "kinds":
            yield from (f"{kind}={rate:g}" for kind, rate in value.items())
        else:
            yield f"{name}={_text(value)}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(int(value))
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
