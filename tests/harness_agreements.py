"""Agreements of venues for quotes that tests make: every second quote has one, in turn of each kind."""

from decimal import Decimal

from hypothesis import strategies as st

from cotacoes.model.quote import PRICE_FRACTION_DIGITS_MAX, PRICE_INTEGER_DIGITS_MAX, VENUES_MAX, Agreement

AGREEMENTS = [
    Agreement("agreed", Decimal("12.34"), 5, 6),
    Agreement("thin", Decimal("167.5"), 1, 6),
    Agreement("agreed", Decimal("0"), 3, 3),
    Agreement("thin", Decimal("0.000000000000000000"), 2, 100),
    Agreement("agreed", Decimal("9" * PRICE_INTEGER_DIGITS_MAX + "." + "9" * PRICE_FRACTION_DIGITS_MAX), 100, 100),
]


def agreement_of(number: int) -> Agreement | None:
    """The agreement of the quote with this number; None for every other one."""
    index, is_plain = divmod(number, 2)
    return None if is_plain else AGREEMENTS[index % len(AGREEMENTS)]


_venues = st.integers(1, VENUES_MAX)
_confidences = st.builds(
    lambda number, places: Decimal(f"{number}E-{places}"),
    st.integers(0, 10**PRICE_INTEGER_DIGITS_MAX - 1),
    st.integers(0, PRICE_FRACTION_DIGITS_MAX),
)
agreements = st.builds(
    lambda state, confidence, venues: Agreement(state, confidence, min(venues), max(venues)),
    st.sampled_from(["agreed", "thin"]),
    _confidences,
    st.tuples(_venues, _venues),
)
