"""The last good answer is as old as its question, and beyond some age it is not used."""

import pytest

from cotacoes.patterns.resilience import LastGood
from cotacoes.patterns.resilience.fallback import CachedAnswer


class Bench:
    def __init__(self, **given: float) -> None:
        self.now = 100.0
        self.kept = LastGood[str](**{"max_age": 10.0, **given}, clock=lambda: self.now)  # type: ignore[arg-type]


def test_the_age_of_an_answer_counts_from_the_question_and_it_names_its_upstream() -> None:
    bench = Bench()
    bench.kept.put("bitcoin", "67012.34", upstream="gateway", asked_at=98.5)
    bench.now = 101.0
    assert bench.kept.get("bitcoin") == CachedAnswer("67012.34", "gateway", 2.5)
    assert bench.kept.get("ethereum") is None


def test_the_newest_answer_stays() -> None:
    bench = Bench()
    bench.kept.put("a", "1", upstream="x", asked_at=99.0)
    bench.kept.put("a", "2", upstream="x", asked_at=100.0)
    assert bench.kept.get("a") == CachedAnswer("2", "x", 0.0)


def test_a_slow_answer_does_not_replace_the_answer_to_a_later_question() -> None:
    bench = Bench()
    bench.kept.put("a", "later", upstream="x", asked_at=99.0)
    bench.kept.put("a", "slow", upstream="x", asked_at=97.0)
    assert bench.kept.get("a") == CachedAnswer("later", "x", 1.0)


def test_an_answer_beyond_its_age_is_dropped() -> None:
    bench = Bench()
    bench.kept.put("a", "1", upstream="x", asked_at=100.0)
    bench.now = 110.0
    assert bench.kept.get("a") is not None
    bench.now = 110.1
    assert bench.kept.get("a") is None
    bench.now = 105.0
    assert bench.kept.get("a") is None


def test_beyond_max_keys_the_answer_put_first_is_dropped() -> None:
    bench = Bench(max_keys=2)
    for key in ("a", "b", "a", "c"):
        bench.kept.put(key, key, upstream="x", asked_at=100.0)
    assert [bench.kept.get(key) is not None for key in ("a", "b", "c")] == [True, False, True]


@pytest.mark.parametrize("impossible", [{"max_age": 0.0}, {"max_age": float("nan")}, {"max_keys": 0}])
def test_an_impossible_bound_is_refused(impossible: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="max_age"):
        Bench(**impossible)
