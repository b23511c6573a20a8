"""What `cotacoes up` shows: the source of the prices, one table, then a line for each quote and change of state.

People get text, coloured on a terminal; programs get one JSON object per line (`--json`):

    {"type":"source","text"}   {"type":"parts","parts":[…]}   {"type":"part","time","part","state","detail"}
    {"type":"event","part","event",…}   and client_subscriber's own lines (`client_subscriber/lines.py`)
    {"type":"unshown","coin","after","through"}   quotes that were recorded while client_subscriber was restarted

A restarted client_subscriber begins with the newest quote, however long it was away. The quotes between that one and
the last one shown are named but not fetched: they may be many, and the history has them.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cotacoes.client_subscriber.lines import LineFormatter, position_range
from cotacoes.model.quote import Position, QuoteJson, format_time, parse_time
from cotacoes.patterns.pub_sub.bus import FeedPosition, Gap, Reason
from cotacoes.patterns.pub_sub.recovery_events import (
    Dismissed,
    GapDetected,
    GapFilled,
    GapLost,
    QuoteReceived,
    RecoveryEvent,
    Retracted,
)
from cotacoes.up.supervision.service import ServiceState, StateChange

SUBSCRIBER = "client_subscriber"
TEXT_MAX = 300
HELD_LINES_MAX = 1000
QUOTE_LINE = b'{"type":"quote",'
_SETTLED = {ServiceState.RUNNING, ServiceState.EXTERNAL, ServiceState.STOPPED, ServiceState.PAUSED, ServiceState.FAILED}
_PASSING = {ServiceState.WAITING, ServiceState.STARTING}  # not worth a line unless there is a reason to show
_HIDDEN_LEVELS = {"debug"}
_HIDDEN_EVENTS = {"service.started", "service.stopped"}  # the state of the service says the same
_NOT_FACTS = {"event", "level", "time", "service", "exception"}
_COLOURS = {
    ServiceState.RUNNING: "32",
    ServiceState.EXTERNAL: "32",
    ServiceState.RESTARTING: "33",
    ServiceState.PAUSED: "36",
    ServiceState.STOPPED: "33",
    ServiceState.FAILED: "31",
}


class Style(enum.Enum):
    """Who reads the lines."""

    COLOURED = "coloured"
    PLAIN = "plain"
    JSON = "json"


class LiveView:
    """Turns events into lines. `put` gets one line without its line feed; `rows` are those of `status`.

    The table is shown once all services have settled, or when `show_table` is called. What people read below it waits
    until then. `page` is the address of the page, which is named below the table.
    """

    def __init__(
        self,
        style: Style,
        put: Callable[[str], None],
        *,
        coin_width: int,
        now: Callable[[], datetime],
        page: str = "",
    ) -> None:
        self._page = page
        self._style = style
        self._put = put
        self._coin_width = coin_width
        self._now = now
        self._lines = LineFormatter(coin_width, coloured=style is Style.COLOURED)
        self._has_table = False
        self._last_shown: dict[bytes, bytes] = {}  # by coin, the line of its newest quote
        self._resuming: set[bytes] = set()  # coins that client_subscriber has not shown since it was started again
        self._held: list[str] = []
        self.rows: Callable[[], Sequence[Mapping[str, object]]] = list

    def show_source(self, text: str) -> None:
        """The first line: where the prices come from."""
        self._tell({"type": "source", "text": text}, text)

    def show_table(self) -> None:
        """Show the table of services, once."""
        if self._has_table:
            return
        self._has_table = True
        rows = self.rows()
        if self._style is Style.JSON:
            self._put(_encode({"type": "parts", "parts": rows}))
            return
        cells = [
            ("service", "address", "state"),
            *((_text(r["name"]), _text(r["address"]), _text(r["state"])) for r in rows),
        ]
        widths = [max(len(row[column]) for row in cells) for column in (0, 1)]
        self._put("")
        for name, address, state in cells:
            shown = state if state == "state" else self._coloured(ServiceState(state))
            self._put(f"{name:<{widths[0]}}  {address:<{widths[1]}}  {shown}")
        self._put("")
        if self._page:
            self._put(f"In a browser: {self._page}")
            self._put("")
        for line in self._held:
            self._put(line)
        self._held.clear()

    def show_change(self, change: StateChange) -> None:
        """Show that a service entered a state."""
        if change.service == SUBSCRIBER and change.state is not ServiceState.RUNNING:
            self._resuming = set(self._last_shown)
        now = self._now()
        if self._style is Style.JSON:
            fields = {"type": "part", "time": format_time(now), "part": change.service, "state": change.state.value}
            self._put(_encode({**fields, "detail": change.detail}))
        elif change.detail or (self._has_table and change.state not in _PASSING):
            detail = f": {_clean(change.detail)}" if change.detail else ""
            state = self._coloured(change.state)
            self._put(f"{_clock(now)} {change.service} {state}{detail}")
        if not self._has_table and all(row["state"] in _SETTLED for row in self.rows()):
            self.show_table()

    def show_line(self, service: str, stream: str, line: bytes) -> bool:
        """Show a line that a service wrote; False if it belongs in the service's log only."""
        if service == SUBSCRIBER and stream == "stdout":
            return self._show_news(line)
        event = _event(line)
        if event is None or event.get("level") in _HIDDEN_LEVELS:
            return False
        if self._style is Style.JSON:
            self._put(_encode({"type": "event", "part": service, **event}))
        elif event["event"] not in _HIDDEN_EVENTS:
            facts = "".join(f" {name}={_clean(value)}" for name, value in event.items() if name not in _NOT_FACTS)
            self._put_below(f"{_clock(self._time_of(event))} {service} {_clean(event['event'])}{facts}")
        return True

    def say(self, text: str) -> None:
        """Show a note about the whole system."""
        self._tell({"type": "note", "time": format_time(self._now()), "text": text}, f"{_clock(self._now())} {text}")

    def _show_news(self, line: bytes) -> bool:
        if line.startswith(QUOTE_LINE):
            self._note_quote(line)
        if self._style is Style.JSON and line.startswith(QUOTE_LINE):
            self._put(line.decode("utf-8", "replace"))  # unchanged: our own process writes thousands of these a second
            return True
        try:
            news = json.loads(line)
            event = _event_of(news)
            if self._style is Style.JSON:
                self._put(line.decode())
            elif event is not None:
                self._put_below(self._lines.line(event, self._now().astimezone()).rstrip("\n"))
        except (ValueError, KeyError, TypeError, RecursionError, msgspec.MsgspecError):
            return False
        return True

    def _note_quote(self, line: bytes) -> None:
        """Remember it as the last of its coin; after a restart, say which quotes before it were not shown."""
        coin = line[len(QUOTE_LINE) :].partition(b",")[0]
        last = self._last_shown.get(coin)
        if last is not None and coin in self._resuming:
            self._resuming.discard(coin)
            self._say_unshown(last, line)
        self._last_shown[coin] = line

    def _say_unshown(self, last: bytes, line: bytes) -> None:
        try:
            before, quote = (msgspec.json.decode(one, type=QuoteJson).quote() for one in (last, line))
        except (ValueError, msgspec.MsgspecError):
            return
        gap = FeedPosition(quote.coin, before.position).receive(quote).gap
        if gap is None or gap.reason is Reason.REWRITTEN:
            return
        if self._style is Style.JSON:
            fields = {name: text for name, text in gap.fields().items() if name != "reason"}
            self._put(_encode({"type": "unshown", **fields}))
        else:
            text = f"not shown while {SUBSCRIBER} was restarted: {position_range(gap)}"
            self._put_below(f"{_clock(self._now())}  {gap.coin:<{self._coin_width}}  {text}")

    def _time_of(self, event: Mapping[str, Any]) -> datetime:
        try:
            return parse_time(str(event.get("time")))
        except ValueError:
            return self._now()

    def _put_below(self, line: str) -> None:
        """Put a line, after the table."""
        if self._has_table:
            self._put(line)
        elif len(self._held) < HELD_LINES_MAX:
            self._held.append(line)

    def _tell(self, fields: Mapping[str, object], text: str) -> None:
        self._put(_encode(fields) if self._style is Style.JSON else text)

    def _coloured(self, state: ServiceState) -> str:
        code = _COLOURS.get(state)
        return f"\x1b[{code}m{state.shown}\x1b[0m" if self._style is Style.COLOURED and code else state.shown


def dropped_line(style: Style, count: int) -> str:
    """A line that says how many lines were dropped because the reader was too slow."""
    text = f"{count} lines were not shown"
    return _encode({"type": "note", "text": text}) if style is Style.JSON else f"… {text}"


def _event_of(news: dict[str, Any]) -> RecoveryEvent | None:
    """The event in a line of client_subscriber; None for silent and back, which its log reports too."""
    match news["type"]:
        case "quote":
            return QuoteReceived(msgspec.convert(news, QuoteJson).quote())
        case "gap":
            return GapDetected(_gap_of(news))
        case "gone":
            return GapLost(_gap_of(news))
        case "retracted":
            return Retracted(_gap_of(news))
        case "dismissed":
            return Dismissed(_gap_of(news))
        case "recovered":
            return GapFilled(news["coin"], _position(news["after"]), _position(news["through"]), int(news["quotes"]))
    return None


def _gap_of(news: dict[str, Any]) -> Gap:
    return Gap(news["coin"], _position(news["after"]), Position.parse(news["through"]), Reason(news["reason"]))


def _position(text: str | None) -> Position | None:
    return None if text is None else Position.parse(text)


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{"):
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _encode(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, ensure_ascii=False, default=str)


def _clock(time: datetime) -> str:
    return f"{time.astimezone(_local()):%H:%M:%S}"


def _local() -> Any:
    return datetime.now(UTC).astimezone().tzinfo


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _clean(value: object) -> str:
    """The text on one line, without control characters: it may come from outside."""
    text = str(value)
    shown = "".join(character if character.isprintable() else "�" for character in text[:TEXT_MAX])
    return shown + ("…" if len(text) > TEXT_MAX else "")
