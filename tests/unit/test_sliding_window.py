"""The windows count what a list of all calls would count."""

from hypothesis import example, given
from hypothesis import strategies as st

from cotacoes.patterns.resilience.sliding_window import FAILED, SLOW, CountWindow, TimeWindow

CODES = st.sampled_from([0, FAILED, SLOW, FAILED | SLOW])


def counted(codes: list[int]) -> tuple[int, int, int]:
    return len(codes), sum(bool(code & FAILED) for code in codes), sum(bool(code & SLOW) for code in codes)


def totals(window: CountWindow | TimeWindow) -> tuple[int, int, int]:
    return window.calls, window.failures, window.slow_calls


@given(st.integers(1, 8), st.lists(CODES, max_size=40))
def test_a_count_window_holds_the_last_calls(size: int, codes: list[int]) -> None:
    window = CountWindow(size)
    for number, code in enumerate(codes, start=1):
        window.record(code, 0.0)
        assert totals(window) == counted(codes[:number][-size:])


@example(2, 0, [(FAILED, 0), (0, 8)])
@given(st.integers(1, 8), st.integers(0, 10**6), st.lists(st.tuples(CODES, st.integers(0, 30)), max_size=40))
def test_a_time_window_holds_the_calls_of_the_last_seconds(size: int, start: int, calls: list[tuple[int, int]]) -> None:
    window = TimeWindow(size)
    now = float(start)
    kept: list[tuple[int, int]] = []
    for code, quarters in calls:
        now += quarters / 4
        window.forget_old(now)
        in_it = [code for code, second in kept if second > int(now) - size]
        assert totals(window) == counted(in_it)
        window.record(code, now)
        kept.append((code, int(now)))
        assert totals(window) == counted([*in_it, code])
