"""What `cotacoes up` shows, to people and to programs."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from cotacoes import config
from cotacoes.up.live_view import TEXT_MAX, LiveView, Style
from cotacoes.up.supervision.service import ServiceState, StateChange
from cotacoes.up.topology import page_address

NOON = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
CLOCK = f"{NOON.astimezone():%H:%M:%S}"
QUOTE = {
    "type": "quote",
    "coin": "bitcoin",
    "currency": "USD",
    "price": "67012.340",
    "epoch": 5,
    "seq": 7,
    "observed_at": "2026-11-24T12:00:00Z",
    "at": "2026-11-24T12:00:00Z",
    "origin": "sim",
    "prev": None,
}


class Shown:
    """A view, its lines, and the states of two services."""

    def __init__(self, style: Style = Style.PLAIN, page: str = "") -> None:
        self.lines: list[str] = []
        self.states = {"redis": ServiceState.STARTING, "quote_service": ServiceState.WAITING}
        self.view = LiveView(style, self.lines.append, coin_width=8, now=lambda: NOON, page=page)
        self.view.rows = lambda: [
            {"name": name, "address": "redis://far" if name == "redis" else None, "state": state.value}
            for name, state in self.states.items()
        ]

    def change(self, service: str, state: ServiceState, detail: str = "") -> None:
        self.states[service] = state
        self.view.show_change(StateChange(service, state, detail))

    def settle(self) -> None:
        for service in self.states:
            self.change(service, ServiceState.RUNNING)
        self.lines.clear()


def encoded(item: object) -> bytes:
    return json.dumps(item).encode()


def test_the_table_is_shown_once_when_all_services_have_settled() -> None:
    shown = Shown()
    shown.view.show_source("simulated market")
    shown.change("redis", ServiceState.RUNNING)
    assert shown.lines == ["simulated market"]
    shown.change("quote_service", ServiceState.RUNNING)
    assert shown.lines[1:] == [
        "",
        "service        address      state",
        "redis          redis://far  running",
        "quote_service  -            running",
        "",
    ]
    shown.view.show_table()
    assert len(shown.lines) == 6


def test_people_get_the_address_of_the_page_below_the_table_and_programs_do_not() -> None:
    for style in Style:
        shown = Shown(style, page="http://127.0.0.1:8000/#token=secret")
        shown.view.show_table()
        assert any("In a browser: http://127.0.0.1:8000/#token=secret" in line for line in shown.lines) is (
            style is not Style.JSON
        )
        assert style is not Style.JSON or "secret" not in "".join(shown.lines)


def test_the_token_is_in_the_fragment_of_the_address_and_only_on_a_terminal() -> None:
    settings = config.load({}, admin_token="sesame", port_base=9000)
    assert page_address(settings, with_token=True) == "http://127.0.0.1:9000/#token=sesame"
    assert page_address(settings, with_token=False) == "http://127.0.0.1:9000/"


def test_quotes_wait_for_the_table_but_problems_do_not() -> None:
    shown = Shown()
    assert shown.view.show_line("client_subscriber", "stdout", encoded(QUOTE))
    assert shown.lines == []
    shown.change("redis", ServiceState.RESTARTING, "killed by SIGKILL; again in 0.5 s")
    assert shown.lines == [f"{CLOCK} redis restarting: killed by SIGKILL; again in 0.5 s"]
    shown.view.show_table()
    assert "67012.340 USD" in shown.lines[-1]


def test_after_the_table_a_change_is_one_line_and_passing_states_are_not_shown() -> None:
    shown = Shown()
    shown.settle()
    for state in (
        ServiceState.STOPPED,
        ServiceState.WAITING,
        ServiceState.STARTING,
        ServiceState.RUNNING,
        ServiceState.PAUSED,
    ):
        shown.change("redis", state)
    assert shown.lines == [f"{CLOCK} redis {state}" for state in ("stopped", "running", "paused")]


def test_an_event_of_a_service_is_one_line_with_its_facts() -> None:
    shown = Shown()
    shown.settle()
    event = {
        "event": "breaker.opened",
        "level": "info",
        "time": "2026-11-24T12:00:00Z",
        "service": "quote_service",
        "failures": 5,
    }
    assert shown.view.show_line("quote_service", "stderr", encoded(event))
    assert shown.lines == [f"{CLOCK} quote_service breaker.opened failures=5"]


@pytest.mark.parametrize(
    "line",
    [
        b"Traceback (most recent call last):",
        b"{",
        b"{}",
        b'{"event":"x","level":"debug"}',
        b"[" * 100_000,
        b"",
        b"\xff",
    ],
)
def test_a_line_that_is_not_an_event_goes_to_the_log_only(line: bytes) -> None:
    shown = Shown()
    shown.settle()
    assert not shown.view.show_line("quote_service", "stderr", line)
    assert shown.lines == []


def test_the_start_of_a_service_is_shown_once() -> None:
    shown = Shown()
    shown.settle()
    assert shown.view.show_line("quote_service", "stderr", encoded({"event": "service.started", "level": "info"}))
    assert shown.lines == []


def test_no_control_character_is_shown_and_lines_are_bounded() -> None:
    shown = Shown()
    shown.settle()
    event = {"event": "a.b", "reason": "\x1b[2J\n\u202e" + "x" * 1000}
    shown.view.show_line("quote_service", "stderr", encoded(event))
    (line,) = shown.lines
    assert line.isprintable()
    assert len(line) < TEXT_MAX + 100


def test_quotes_and_gaps_are_shown_as_the_subscriber_shows_them() -> None:
    shown = Shown()
    shown.settle()
    shown.view.show_line("client_subscriber", "stdout", encoded(QUOTE))
    shown.view.show_line("client_subscriber", "stdout", encoded(QUOTE | {"seq": 8, "price": "67012.350"}))
    gap = {"type": "gap", "coin": "bitcoin", "after": "5-8", "through": "5-10", "reason": "lost"}
    shown.view.show_line("client_subscriber", "stdout", encoded(gap))
    shown.view.show_line("client_subscriber", "stdout", encoded(gap | {"after": None}))
    shown.view.show_line("client_subscriber", "stdout", encoded(gap | {"type": "gone", "reason": "gone"}))
    recovered = {"type": "recovered", "coin": "bitcoin", "after": "5-8", "through": "5-10", "quotes": 2}
    shown.view.show_line("client_subscriber", "stdout", encoded(recovered))
    assert "67012.340 USD" in shown.lines[0]
    assert "▲" in shown.lines[1]
    assert [line.partition("bitcoin   ")[2] for line in shown.lines[2:]] == [
        "missed 5-9 to …-10",
        "missed all from the first one to 5-10",
        "gone: 5-9 to …-10, no longer in the history",
        "recovered 2, through 5-10",
    ]


def test_a_silence_is_shown_once() -> None:
    shown = Shown()
    shown.settle()
    assert shown.view.show_line("client_subscriber", "stdout", encoded({"type": "silent", "coin": "bitcoin"}))
    assert shown.lines == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        b'{"type":"quote"}',
        b'{"type":"gap","after":"x"}',
        b'{"type":"gone","coin":"bitcoin","after":null,"through":"x","reason":"gone"}',
        b'{"type":"recovered","coin":"bitcoin","after":null,"through":null,"quotes":"x"}',
    ],
)
def test_an_invalid_line_of_the_subscriber_goes_to_the_log_only(line: bytes) -> None:
    shown = Shown()
    shown.settle()
    assert not shown.view.show_line("client_subscriber", "stdout", line)
    assert shown.lines == []


def test_programs_get_one_json_object_per_line() -> None:
    shown = Shown(Style.JSON)
    shown.view.show_source("simulated market")
    shown.change("redis", ServiceState.STARTING)
    shown.view.show_line("client_subscriber", "stdout", encoded(QUOTE))
    shown.view.show_line("quote_service", "stderr", encoded({"event": "a.b", "level": "info", "failures": 5}))
    shown.change("redis", ServiceState.RUNNING)
    shown.change("quote_service", ServiceState.RUNNING)
    shown.view.say("stopping")
    items = [json.loads(line) for line in shown.lines]
    assert [item["type"] for item in items] == ["source", "part", "quote", "event", "part", "part", "parts", "note"]
    assert items[1] == {
        "type": "part",
        "time": "2026-11-24T12:00:00.000000Z",
        "part": "redis",
        "state": "starting",
        "detail": "",
    }
    assert items[2] == QUOTE
    assert items[3] == {"type": "event", "part": "quote_service", "event": "a.b", "level": "info", "failures": 5}


def test_only_coloured_lines_carry_colour() -> None:
    for style in Style:
        shown = Shown(style)
        shown.view.show_table()
        shown.change("redis", ServiceState.FAILED, "no")
        shown.view.show_line("client_subscriber", "stdout", encoded(QUOTE))
        assert ("\x1b[" in "".join(shown.lines)) is (style is Style.COLOURED)


def subscriber_says(shown: Shown, *seqs: int, epoch: int = 5, coin: str = "bitcoin") -> None:
    for seq in seqs:
        quote = {**QUOTE, "coin": coin, "epoch": epoch, "seq": seq}
        shown.view.show_line("client_subscriber", "stdout", msgspec.json.encode(quote))


@pytest.mark.parametrize("style", [Style.PLAIN, Style.JSON])
def test_quotes_missed_during_a_restart_of_the_subscriber_are_named_once_per_coin(style: Style) -> None:
    shown = Shown(style)
    shown.settle()
    subscriber_says(shown, 51, 52)
    subscriber_says(shown, 7, coin="ethereum")
    shown.view.show_change(StateChange("client_subscriber", ServiceState.RESTARTING, "killed"))
    shown.view.show_change(StateChange("client_subscriber", ServiceState.STARTING))
    shown.view.show_change(StateChange("client_subscriber", ServiceState.RUNNING))
    shown.lines.clear()
    subscriber_says(shown, 55, 56)
    subscriber_says(shown, 8, coin="ethereum")
    said, *quotes = shown.lines
    assert len(quotes) == 3, "and nothing was missed of ethereum"
    if style is Style.JSON:
        assert json.loads(said) == {"type": "unshown", "coin": "bitcoin", "after": "5-52", "through": "5-54"}
    else:
        assert said == f"{CLOCK}  bitcoin   not shown while client_subscriber was restarted: 5-53 to …-54"


def test_a_subscriber_that_was_away_over_an_epoch_has_missed_its_end() -> None:
    shown = Shown()
    shown.settle()
    subscriber_says(shown, 52)
    shown.view.show_change(StateChange("client_subscriber", ServiceState.RESTARTING))
    shown.lines.clear()
    subscriber_says(shown, 3, epoch=9)
    assert "all after 5-52 to 9-2" in shown.lines[0]


def test_a_subscriber_that_continues_or_repeats_its_last_quote_has_missed_nothing() -> None:
    for seq in (52, 53):
        shown = Shown()
        shown.settle()
        subscriber_says(shown, 52)
        shown.view.show_change(StateChange("client_subscriber", ServiceState.RESTARTING))
        shown.lines.clear()
        subscriber_says(shown, seq)
        assert len(shown.lines) == 1
