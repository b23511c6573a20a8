"""`cotacoes doctor`: what each check says of which facts, and that looking at a folder changes nothing in it."""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cotacoes.adapters.postgres.schema import known_migrations
from cotacoes.adapters.quote_log.log import FORMAT_VERSION, QuoteLog
from cotacoes.adapters.quote_log.rows import Mark
from cotacoes.cli import doctor
from cotacoes.doctor import data, venue_checks
from cotacoes.doctor.examination import CHECKS, judge
from cotacoes.doctor.facts import (
    Facts,
    Folder,
    Local,
    Machine,
    Port,
    Prices,
    RunningService,
    ShardFacts,
    StoredLog,
)
from cotacoes.doctor.finding import Finding, Severity
from cotacoes.doctor.gathering import aside, by_deadline
from cotacoes.model.payloads import CurrentJson, Progress
from cotacoes.model.quote import Position, Quote
from cotacoes.model.venues import ConsensusJson, FeedJson, VenueBookJson, VenuesJson
from cotacoes.patterns.consensus import VenueReason
from cotacoes.up.data_folder import VERSION, DataFolder
from cotacoes.up.supervision import processes
from cotacoes.up.supervision.service import ServiceState as State

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
GB = 1_000_000_000
MACHINE = Machine((3, 11, 7), "Linux x86_64", None, None, 50 * GB, 8 * GB)
FOLDER = Folder(exists=True, version=str(VERSION), log_format=FORMAT_VERSION, logs_bytes=5_000)
APPLIED = [
    {"version": migration.version, "name": migration.name, "sha256": migration.sha256}
    for migration in known_migrations()
]
SHARD = ShardFacts(migrations=APPLIED, newest_at=NOW - timedelta(seconds=1))
TIME = "2026-11-24T11:59:59.600000Z"
CURRENT = CurrentJson("bitcoin", "USD", "67012.34", 5, 7, TIME, TIME, 400, "fresh", "live", "sim", "closed")
PRICES = Prices(
    currents={"bitcoin": CURRENT},
    progress={"bitcoin": Progress("5-7", "5-7", 0, "shard1")},
)
HEALTHY = Facts(
    path=Path("/data"),
    now=NOW,
    local=Local(MACHINE, FOLDER, [Port("gateway_service", 8000, None)]),
    is_running=True,
    services={name: RunningService(State.RUNNING, 0) for name in ("shard1", "quote_service", "client_subscriber")},
    shards={"shard1": SHARD},
    has_redis=True,
    prices=PRICES,
)
BOOKS = [
    VenueBookJson("binance", "USDT", True, None, "67012.3", "67012.4", "67012.35", "67010.339629500000000001"),
    VenueBookJson("kraken", "USD", True, None, "67010.0", "67010.1", "67010.05", "67010.05"),
    VenueBookJson("okx", "USDT", True, None, "67012.1", "67012.2", "67012.15", "67010.15"),
]
FEED = FeedJson(
    venue="binance",
    url="wss://example.com/stream",
    state="live",
    since=TIME,
    breaker="closed",
    coins=["bitcoin"],
    absent={},
    skew_ms=40,
    frames=700,
    books=650,
    malformed=0,
    gaps=0,
    openings=1,
    closed_reason=None,
    closed_text=None,
    closed_at=None,
)
AGREED = ConsensusJson("bitcoin", "agreed", None, 3, 3, "67010.15", "1.1", "67010.0", "67010.4", TIME, 400, BOOKS)
OTHERS = [msgspec.structs.replace(FEED, venue=name, skew_ms=ms) for name, ms in (("kraken", 90), ("okx", -30))]
VENUES = VenuesJson([FEED, *OTHERS], {"USD": "1", "USDT": "0.99997"}, [AGREED])
FOLLOWING = replace(
    HEALTHY,
    source_service="feed_service",
    venues=VENUES,
    services={**HEALTHY.services, "feed_service": RunningService(State.RUNNING, 0)},
)
OFF = replace(HEALTHY, is_running=False, services={}, shards={}, has_redis=False, prices=None, stored_log=StoredLog())


def with_machine(**changes: Any) -> Facts:
    return replace(HEALTHY, local=Local(replace(MACHINE, **changes), FOLDER))


def with_folder(facts: Facts = HEALTHY, **changes: Any) -> Facts:
    return replace(facts, local=Local(MACHINE, replace(FOLDER, **changes)))


def with_service(name: str, state: State, restarts: int = 0, last_words: str = "") -> Facts:
    return replace(HEALTHY, services={**HEALTHY.services, name: RunningService(state, restarts, last_words)})


def with_shard(**changes: Any) -> Facts:
    return replace(HEALTHY, shards={"shard1": replace(SHARD, **changes)})


def with_prices(facts: Facts = HEALTHY, **changes: Any) -> Facts:
    return replace(facts, prices=replace(PRICES, **changes))


def current(**changes: str) -> dict[str, CurrentJson]:
    return {"bitcoin": msgspec.structs.replace(CURRENT, age_ms=7_000, **changes)}


def with_feed(**changes: Any) -> Facts:
    """With another first venue, and another price of the coin if `consensus` has changes."""
    consensus = msgspec.structs.replace(AGREED, **changes.pop("consensus", {}))
    feeds = [msgspec.structs.replace(FEED, **changes), *OTHERS]
    return replace(FOLLOWING, venues=VenuesJson(feeds, VENUES.rates, [consensus]))


def with_all_feeds(**changes: Any) -> Facts:
    feeds = [msgspec.structs.replace(feed, **changes) for feed in VENUES.feeds]
    return replace(FOLLOWING, venues=VenuesJson(feeds, VENUES.rates, [AGREED]))


def with_skews(*skews: int | None) -> Facts:
    feeds = [msgspec.structs.replace(FEED, venue=f"venue{number}", skew_ms=ms) for number, ms in enumerate(skews)]
    return replace(FOLLOWING, venues=VenuesJson(feeds, VENUES.rates, [AGREED]))


def unused(state: str, /, *reasons: str | None, **feed: Any) -> Facts:
    books = [
        msgspec.structs.replace(book, reason=why, used=why is None) for book, why in zip(BOOKS, reasons, strict=True)
    ]
    used = sum(why is None for why in reasons)
    return with_feed(consensus={"state": state, "used": used, "venues": books}, **feed)


def pending(count: int, age_s: float | None) -> dict[str, Any]:
    oldest = {} if age_s is None else {"bitcoin": age_s}
    return {"progress": {"bitcoin": Progress("5-7", "5-6", count, "shard1")}, "oldest_pending_s": oldest}


def test_every_check_of_a_healthy_system_has_one_finding_and_it_is_ok() -> None:
    findings = judge(HEALTHY)
    assert {finding.severity for finding in findings} == {Severity.OK}
    others = {"leftovers", "venues", "venue_clock", "consensus"}
    assert [finding.check for finding in findings] == [name for name in CHECKS if name not in others]


def test_every_check_of_a_healthy_system_that_follows_exchanges_has_one_finding_and_it_is_ok() -> None:
    findings = judge(FOLLOWING)
    assert {finding.severity for finding in findings} == {Severity.OK}
    assert [finding.check for finding in findings] == [name for name in CHECKS if name != "leftovers"]


def test_that_nothing_runs_is_not_an_error() -> None:
    findings = judge(OFF)
    assert {finding.severity for finding in findings} == {Severity.OK}
    assert "nothing runs on /data" in " ".join(finding.text for finding in findings)


@pytest.mark.parametrize("facts", [replace(OFF, has_redis=True), with_prices(problem="quote_service is away")])
def test_redis_is_only_known_to_answer_if_nothing_publishes(facts: Facts) -> None:
    assert [finding.text for finding in judge(facts) if finding.check == "redis"] == ["Redis answers"]


MIGRATED_BY_OTHERS = [{**APPLIED[0], "sha256": "0" * 64}]
NEWER = [*APPLIED, {"version": 9000, "name": "9000_later.sql", "sha256": ""}]
# What the doctor adds to the text of a connection's end, by its reason.
ENDS = {
    "no_name": "a new connection is opened by itself",
    "timed_out": "check the network and any firewall; a new",
    "no_websocket": "check COTACOES_VENUE_URLS, and any proxy or captive portal",
    "blocked": "leave it out with COTACOES_VENUES, or",
    "rate_limited": "it is tried again when the venue permits",
    "banned": "it is tried again after that",
    "refused": "check COTACOES_VENUE_URLS",
    "stalled": "a new connection is opened by itself",
    "never": "correct its symbol in COTACOES_VENUE_SYMBOLS",
}
ERROR, WARNING, OK = Severity.ERROR, Severity.WARNING, Severity.OK


@pytest.mark.parametrize(
    ("check", "facts", "severity", "said", "mend"),
    [
        ("release", with_machine(python=(3, 10, 9)), ERROR, "3.11 or newer", "make PYTHON=python3.12 install"),
        ("release", replace(HEALTHY, local=None, local_problem="a hung disk"), ERROR, "a hung disk", None),
        ("settings", replace(HEALTHY, settings_problem="unknown setting COTACOES_X"), ERROR, "COTACOES_X", None),
        ("servers", with_machine(no_servers="no postgres"), ERROR, "no postgres", "docker compose up --build"),
        ("servers", with_machine(no_namespaces="no root"), ERROR, "no root", "docker compose up --build"),
        ("room", with_machine(disk_free_bytes=150_000_000), ERROR, "150 MB free", None),
        ("room", with_machine(disk_free_bytes=900_000_000), WARNING, "only 900 MB", None),
        (
            "room",
            replace(with_machine(memory_free_bytes=90_000_000), is_running=False),
            WARNING,
            "only 90 MB of memory",
            None,
        ),
        ("folder", with_folder(problem="it is not writable"), ERROR, "is not writable", None),
        ("folder", with_folder(version=str(VERSION + 1)), ERROR, f"knows up to {VERSION}", None),
        ("folder", with_folder(version="no number"), ERROR, "of version no number", None),
        ("folder", with_folder(log_format=FORMAT_VERSION + 1), ERROR, "local log is of format", None),
        ("permissions", with_folder(open_modes={"control.secret": 0o644}), ERROR, "644", "chmod 600 /data/control.sec"),
        ("permissions", with_folder(open_modes={"shard1": 0o755}), ERROR, "refuses", "chmod 700 /data/shard1"),
        ("permissions", with_folder(open_modes={"": 0o755}), WARNING, "others can read", "chmod 700 /data"),
        ("leftovers", with_folder(OFF, leftovers=["redis (pid 7)"]), WARNING, "redis (pid 7)", "cotacoes up"),
        ("leftovers", with_folder(OFF, drafts=["shard1.new-a"]), WARNING, "shard1.new-a", "cotacoes up"),
        ("logs", with_folder(logs_bytes=90_000_000), WARNING, "90 MB, more than the limit of 80 MB", None),
        (
            "ports",
            replace(OFF, local=Local(MACHINE, FOLDER, [Port("redis", 8010, "x (pid 7)")], 8100)),
            ERROR,
            "8010 (redis) is taken by x (pid 7)",
            "cotacoes up --port-base 8100",
        ),
        ("clock", with_shard(newest_at=NOW + timedelta(seconds=5)), OK, "the clock is not behind", None),
        ("clock", with_shard(newest_at=NOW + timedelta(seconds=59)), WARNING, "(timedatectl set-ntp true)", None),
        ("clock", with_shard(newest_at=NOW + timedelta(hours=23)), WARNING, "prices are recorded", None),
        (
            "clock",
            replace(OFF, stored_log=StoredLog(newest_at=NOW + timedelta(hours=25))),
            ERROR,
            "1 day, 1:00:00 ahead",
            "cotacoes up --accept-clock --data /data",
        ),
        ("system", replace(HEALTHY, up_problem="silence"), ERROR, "silence", None),
        ("system", replace(HEALTHY, up_problem="silence", up_suspended_pid=7), ERROR, "suspended", "kill -CONT 7"),
        (
            "parts",
            with_service("shard1", State.STOPPED),
            WARNING,
            "left shard1 stopped",
            "cotacoes start shard1",
        ),
        ("parts", with_service("shard1", State.PAUSED), WARNING, "left shard1 paused", "cotacoes start shard1"),
        (
            "parts",
            with_service("shard1", State.FAILED, 0, "why"),
            ERROR,
            "gave up; its last message: why",
            "cotacoes start",
        ),
        (
            "parts",
            with_service("shard1", State.RESTARTING, 4, "why"),
            ERROR,
            "(restart 4); its last message: why",
            None,
        ),
        (
            "parts",
            with_service("shard1", State.RUNNING, 3, "why"),
            WARNING,
            "restarted 3 times; its last message: why",
            None,
        ),
        (
            "parts",
            replace(HEALTHY, services={"shard1": RunningService(State.RUNNING, 3, "why", 601.0)}),
            OK,
            "every service runs",
            None,
        ),
        ("parts", with_service("shard1", State.WAITING), WARNING, "not running yet (waiting)", None),
        (
            "parts",
            replace(HEALTHY, silent={"quote_service": "late"}),
            ERROR,
            "quote_service runs but does not answer: late",
            "cotacoes stop quote_service --data /data && cotacoes start quote_service --data /data",
        ),
        ("shards", with_shard(problem="shard1 is not reachable"), ERROR, "shard1 is not reachable", None),
        (
            "shards",
            replace(with_service("shard1", State.STOPPED), shards={"shard1": ShardFacts(problem="shard1 is away")}),
            ERROR,
            "shard1 is away",
            "cotacoes start shard1",
        ),
        ("shards", with_prices(readiness={"shard1": "refused"}), WARNING, "cannot use shard1: refused", None),
        (
            "shards",
            with_prices(readiness={"ledger": "not accepted: bitcoin 1 holes"}),
            WARNING,
            "1 holes",
            "cotacoes ledger list",
        ),
        ("schema", with_shard(migrations=[]), ERROR, "lacks 0001_ledger.sql", 'eval "$(cotacoes env'),
        ("schema", replace(with_shard(migrations=[]), is_running=False), ERROR, "lacks", "cotacoes migrate"),
        ("schema", with_shard(migrations=NEWER), ERROR, "newer than this release", None),
        ("schema", with_shard(migrations=MIGRATED_BY_OTHERS), ERROR, "with other content", None),
        ("partitions", with_shard(missing_days=[date(2026, 11, 25)]), WARNING, "2026-11-25", "cotacoes stop quote_"),
        (
            "partitions",
            replace(with_shard(missing_days=[date(2026, 11, 25)]), services={}),
            WARNING,
            "no partition for 2026-11-25",
            None,
        ),
        ("redis", HEALTHY, OK, "every coin has a subscriber", None),
        ("redis", replace(HEALTHY, redis_problem="Redis is away"), ERROR, "Redis is away", None),
        ("redis", with_prices(unpublished=["bitcoin"]), ERROR, "bitcoin are not published", None),
        (
            "redis",
            with_prices(with_service("client_subscriber", State.STOPPED), unheard=["bitcoin"]),
            WARNING,
            "no subscriber listens to bitcoin",
            "cotacoes start client_subscriber",
        ),
        ("quotes", with_prices(problem="quote_service is away"), ERROR, "quote_service is away", None),
        ("quotes", with_prices(currents={"bitcoin": "none yet"}), ERROR, "none yet", None),
        ("quotes", with_prices(currents=current(status="stale")), WARNING, "stale, 7.0 s old", None),
        ("circuit", with_prices(currents=current(breaker="open")), WARNING, "is open", "cotacoes faults clear"),
        (
            "circuit",
            with_prices(with_service("external_service", State.STOPPED), currents=current(breaker="open")),
            WARNING,
            "is open",
            "cotacoes start external_service",
        ),
        (
            "circuit",
            with_prices(replace(FOLLOWING, venues=None), currents=current(breaker="open")),
            WARNING,
            "the circuit to feed_service is open",
            None,
        ),
        (
            "quotes",
            with_prices(
                replace(FOLLOWING, services={"feed_service": RunningService(State.STOPPED, 0)}),
                currents={"bitcoin": "none yet"},
            ),
            ERROR,
            "none yet",
            "cotacoes start feed_service",
        ),
        (
            "quotes",
            with_prices(
                replace(FOLLOWING, services={"external_service": RunningService(State.STOPPED, 0)}),
                currents={"bitcoin": "none yet"},
            ),
            ERROR,
            "none yet",
            "cotacoes start external_service",
        ),
        ("venues", FOLLOWING, OK, "live: binance, kraken, okx", None),
        (
            "venues",
            replace(
                FOLLOWING,
                venues=None,
                venues_problem="feed_service is away",
                services={"feed_service": RunningService(State.STOPPED, 0)},
            ),
            ERROR,
            "what the venues say is not known: feed_service is away",
            "cotacoes start feed_service",
        ),
        (
            "venues",
            with_feed(state="connecting"),
            WARNING,
            "binance is not live (connecting, wss://example.com/stream)",
            None,
        ),
        *(
            ("venues", with_feed(state="waiting", closed_reason=reason, closed_text="X"), WARNING, f"X; {help_}", None)
            for reason, help_ in ENDS.items()
        ),
        (
            "venues",
            with_all_feeds(state="waiting", closed_reason="no_name", closed_text="check DNS"),
            ERROR,
            "binance, kraken, okx are not live: check DNS; a new connection is opened by itself",
            None,
        ),
        (
            "venues",
            with_feed(breaker="forced_open"),
            WARNING,
            "binance gets no new connection",
            "cotacoes breakers feed_service/binance.connect closed --data /data",
        ),
        ("venues", with_feed(absent={"solana": "it says no"}), WARNING, "does not send solana (it says no)", None),
        ("venues", with_feed(malformed=7, books=0), WARNING, "no frame of binance can be read (7 so far)", None),
        ("venue_clock", FOLLOWING, OK, "to be wrong: that of kraken differs most, by 0.1 s", None),
        (
            "venue_clock",
            with_skews(2_100, 3_000, None),
            WARNING,
            "2.1 s or more ahead of those of venue0",
            "time",
        ),
        (
            "venue_clock",
            with_skews(-1_200, -1_300),
            WARNING,
            "1.2 s or more behind those of venue0",
            "timedate",
        ),
        ("venue_clock", with_skews(-1_200, 20, 2_000), OK, "do not show the clock to be wrong", None),
        ("venue_clock", with_skews(5_000, None), OK, "do not show the clock to be wrong", None),
        ("consensus", FOLLOWING, OK, "the venues agree on bitcoin (3 of 3)", None),
        (
            "consensus",
            unused("thin", "outlier", None, None),
            WARNING,
            "only 2 of 3 venues, which cannot outvote a wrong one: binance far from the others (67010.34 USD)",
            None,
        ),
        (
            "consensus",
            unused("disputed", "disputed", "disputed", "disputed"),
            ERROR,
            "so it gets no new price: binance not confirmed by a majority (67010.34 USD); kraken",
            None,
        ),
        (
            "consensus",
            unused("none", "stale", "no_rate", "empty", state="waiting"),
            ERROR,
            "no venue has a usable price of bitcoin: binance not live (waiting) (67010.34 USD); kraken no agreed rate",
            None,
        ),
        (
            "consensus",
            with_feed(consensus={"state": "none", "used": 0, "of": 0, "venues": []}),
            ERROR,
            "no venue has a usable price of bitcoin: none of them lists it",
            None,
        ),
        ("local_log", with_prices(readiness={"log": "the disk is full"}), ERROR, "the disk is full", None),
        ("local_log", with_prices(**pending(3, 60)), WARNING, "3 of bitcoin, the oldest for 60 s", None),
        ("local_log", with_prices(**pending(3, None)), WARNING, "for an unknown time", None),
        ("local_log", with_prices(**pending(1, 1)), OK, "or on its way", None),
        ("local_log", replace(OFF, stored_log=StoredLog(problem="damaged")), ERROR, "damaged", None),
        (
            "local_log",
            replace(OFF, stored_log=StoredLog(pending={"a": 4}, oldest_pending_at=NOW)),
            OK,
            "delivers 4 pending quotes, the oldest",
            None,
        ),
        ("source_gaps", with_prices(source_gaps=2), WARNING, "2 noted", None),
        ("source_gaps", replace(OFF, stored_log=StoredLog(source_gaps=1)), WARNING, "1 noted", None),
    ],
)
def test_each_problem_is_found_with_its_fix(
    check: str, facts: Facts, severity: Severity, said: str, mend: str | None
) -> None:
    (found,) = [finding for finding in judge(facts) if finding.check == check]
    assert found.severity is severity
    assert said in found.text
    assert found.mend is None if mend is None else found.mend is not None and found.mend.startswith(mend)


def test_every_reason_for_which_a_venue_is_not_used_has_its_words() -> None:
    assert set(venue_checks.REASONS) == {reason.value for reason in VenueReason}


def test_a_clock_by_which_no_venue_was_seen_yet_is_not_judged() -> None:
    assert [finding for finding in judge(with_skews(None, None)) if finding.check == "venue_clock"] == []


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")
    }


def test_inspecting_a_folder_changes_nothing(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder:
        folder.secret("control")
    (folder.path / "logs" / "redis.log").write_bytes(b"x" * 500)
    before = contents(folder.path)
    seen = data.inspect_folder(folder.path)
    assert (seen.exists, seen.problem, seen.version, seen.open_modes) == (True, None, str(VERSION), {})
    assert (seen.logs_bytes, seen.log_format, list(seen.leftovers), list(seen.drafts)) == (500, None, [], [])
    assert contents(folder.path) == before


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    assert data.inspect_folder(tmp_path / "a" / "b") == Folder(exists=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert data.inspect_folder(tmp_path / "file").problem == "it is not a folder"
    assert data.inspect_folder(tmp_path / "file" / "data").problem == f"{tmp_path / 'file'} is not a folder"


def test_open_permissions_and_unfinished_databases_are_found(tmp_path: Path) -> None:
    (tmp_path / "shard1.new-1").mkdir()
    (tmp_path / "shard2").mkdir()
    (tmp_path / "shard2" / "PG_VERSION").touch()
    (tmp_path / "control.secret").touch()
    for name, mode in (("", 0o750), ("shard2", 0o770), ("control.secret", 0o640)):
        (tmp_path / name).chmod(mode)
    seen = data.inspect_folder(tmp_path)
    assert seen.open_modes == {"": 0o750, "control.secret": 0o640, "shard2": 0o770}
    assert list(seen.drafts) == ["shard1.new-1"]


def test_processes_that_outlived_a_killed_up_are_named(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        children = {"redis": [child.pid, processes.birth(child.pid)], "shard1": [child.pid, "another"]}
        running = {"pid": 2**22 + 1, "birth": "gone", "control_port": 1, "children": children}
        (tmp_path / "up.json").write_text(json.dumps(running))
        assert list(data.inspect_folder(tmp_path).leftovers) == [f"redis (pid {child.pid})"]
    finally:
        child.communicate(b"\n")


def quote(seq: int) -> Quote:
    at = NOW + timedelta(seconds=seq)
    return Quote("bitcoin", "USD", Decimal("1.5"), 5, seq, at, at, "sim", Position(4, 9) if seq == 1 else None)


async def write_log(folder: Path) -> None:
    log = QuoteLog(folder, quota_bytes=2**24)
    await log.open()
    await log.begin_epoch("bitcoin", 5, None, Mark(None, None))
    await log.append([quote(seq) for seq in range(1, 8)], {"bitcoin": Mark(Position(5, 4), None)})
    await log.note_source_gap("a-1", "a-3", NOW)
    await log.close()


def test_reading_a_log_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "quote_service"
    folder.mkdir()
    asyncio.run(write_log(folder))
    before = contents(tmp_path)
    stored = asyncio.run(data.read_log(tmp_path))
    assert stored == StoredLog(None, quote(7).at, {"bitcoin": 3}, quote(5).at, 1)
    assert data.inspect_folder(tmp_path).log_format == FORMAT_VERSION
    assert contents(tmp_path) == before


def test_a_damaged_log_is_a_problem_but_a_missing_one_is_not(tmp_path: Path) -> None:
    assert asyncio.run(data.read_log(tmp_path)) is None
    (tmp_path / "quote_service").mkdir()
    (tmp_path / "quote_service" / "quotes.sqlite3").write_bytes(b"no database" * 100)
    stored = asyncio.run(data.read_log(tmp_path))
    assert stored is not None
    assert "its file is damaged" in str(stored.problem)


def test_the_last_message_of_a_service_is_the_last_line_of_its_log(tmp_path: Path) -> None:
    assert data.last_words(tmp_path, "redis") == ""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "redis.log").write_bytes(b"old\n" * 10_000 + b"the reason \xff\n\n")
    assert data.last_words(tmp_path, "redis") == "the reason �"


def test_a_hanging_disk_delays_neither_the_answer_nor_the_exit() -> None:
    def hang() -> str:
        time.sleep(30)
        return "seen"

    async def ask() -> str:
        return await by_deadline(aside(hang), "late", deadline_s=0.05)

    started = time.monotonic()
    assert asyncio.run(ask()) == "late"
    assert time.monotonic() - started < 5


FINDINGS = [
    Finding("release", Severity.OK, "all is new", None),
    Finding("shards", Severity.ERROR, "shard1 is away\x1b[2J", "cotacoes start shard1"),
    Finding("quotes", Severity.WARNING, "stale", None),
]


def test_each_finding_is_a_line_with_its_severity_and_its_fix_below() -> None:
    assert list(doctor.lines(FINDINGS, doctor.marks_for("utf-8"))) == [
        "✓ ok      release     all is new",
        "✗ error   shards      shard1 is away\x1b[2J",
        "                      fix: cotacoes start shard1",
        "! warning quotes      stale",
        "1 error, 1 warning",
    ]
    assert list(doctor.lines(FINDINGS[:1], doctor.marks_for("utf-8")))[-1] == "nothing is wrong"


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", None, "no such"])
def test_a_terminal_that_lacks_the_marks_gets_plain_ones(encoding: str | None) -> None:
    printed = "\n".join(doctor.lines(FINDINGS, doctor.marks_for(encoding)))
    assert printed.isascii()
    assert printed.startswith("+ ok ")


def test_the_names_of_the_checks_fit_their_column() -> None:
    assert max(map(len, CHECKS)) == doctor.CHECK_COLUMNS


def test_a_folder_that_is_not_writable_is_a_problem(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes anywhere")
    tmp_path.chmod(0o500)
    assert data.inspect_folder(tmp_path).problem == "it is not writable"
