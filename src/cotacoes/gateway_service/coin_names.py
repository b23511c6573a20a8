"""CoinNames decides which coin names are worth a question to quote_service.

The gateway learns every few seconds which coins exist. An unknown name may be a coin that was just added, so
quote_service is asked about it, but not often: the answer that it is unknown holds for `UNKNOWN_S`, and new names are
asked about at most `ASKS_PER_S` times a second. Names beyond that are answered here, from the known coins.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

from cotacoes.errors import OverloadedError, UnknownCoinError
from cotacoes.patterns.resilience.token_bucket import TokenBucket

UNKNOWN_S = 5.0
UNKNOWN_NAMES_MAX = 1_024
ASKS_PER_S = 5.0
ASKS_AT_ONCE = 10.0


class CoinNames:
    """The known names. `known` returns the coins known so far; times are monotonic seconds."""

    def __init__(self, known: Callable[[], Collection[str]], clock: Callable[[], float]) -> None:
        self._is_listed = False  # quote_service has said which coins there are
        self._known = known
        self._clock = clock
        self._unknown: OrderedDict[str, tuple[float, UnknownCoinError]] = OrderedDict()
        self._asks = TokenBucket(ASKS_PER_S, ASKS_AT_ONCE, clock())

    def note_listed(self) -> None:
        """Note that quote_service has listed its coins."""
        self._is_listed = True

    def check(self, name: str) -> None:
        """Return if quote_service may be asked about this name; UnknownCoinError or OverloadedError otherwise."""
        if name in self._known():
            return
        now = self._clock()
        until, error = self._unknown.get(name, (0.0, None))
        if error is not None and now < until:
            raise UnknownCoinError(error.detail, did_you_mean=error.extra.get("did_you_mean", []))
        if wait_s := self._asks.take(now):
            if self._is_listed:
                raise UnknownCoinError(f"{name} is not quoted here", did_you_mean=[])
            raise OverloadedError("too many requests for unknown coin names", retry_after_s=wait_s)

    def note_unknown(self, name: str, error: UnknownCoinError) -> None:
        """Note that quote_service does not know this name."""
        self._unknown.pop(name, None)
        self._unknown[name] = (self._clock() + UNKNOWN_S, error)
        if len(self._unknown) > UNKNOWN_NAMES_MAX:
            self._unknown.popitem(last=False)
