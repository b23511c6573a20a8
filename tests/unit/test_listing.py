"""`model/listing.py`: long lists of names in one line."""

from __future__ import annotations

from cotacoes.model.listing import listed


def test_a_short_list_is_shown_whole_and_the_rest_of_a_long_one_is_counted() -> None:
    assert listed(["a", "b"], 10) == "a, b"
    assert listed((f"p{number}" for number in range(12)), 10) == "p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, and 2 more"
    assert listed(["a 1", "b 2", "c 3"], 2, "; ") == "a 1; b 2; and 1 more"
    assert listed([], 2) == ""
