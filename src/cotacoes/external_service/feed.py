"""The feed of external_service: the simulated market, or the replay of a recording, each resumed after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cotacoes.config import Settings
from cotacoes.external_service import replay
from cotacoes.external_service.market import Market
from cotacoes.external_service.playback_session import PlaybackSession, digest_of, load_or_begin, remember_played
from cotacoes.external_service.recording import Recording
from cotacoes.external_service.recording_formats import PAIRS, Pair
from cotacoes.external_service.replay_tape import ReplayTape
from cotacoes.external_service.simulation import Simulation, refuse_reserved
from cotacoes.external_service.tape import TapePages
from cotacoes.model.quote import utc_now
from cotacoes.observability.metrics import ExternalMetrics

Task = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Feed:
    """The newest prices, the pages of the tape as they are now, and the tasks that run beside the requests."""

    market: Market
    pages: Callable[[], TapePages]
    tasks: Sequence[Task]


def open_feed(settings: Settings, folder: Path, metrics: ExternalMetrics) -> Feed:
    """The feed of the settings; SettingError if the recording or a coin's name cannot be used."""
    if not settings.replay_paths:
        simulation = Simulation(settings, folder)
        return Feed(simulation, lambda: simulation.pages, _remembering(settings, folder, simulation.played))
    timeline, session = _timeline(settings, folder)
    tasks = _remembering(settings, folder, lambda: replace(session, played_s=time.monotonic() - timeline.started_s))
    is_paced = settings.speed != replay.MAX_SPEED
    tape = ReplayTape(timeline, None if is_paced else metrics.replay_lines)
    pages = TapePages(session, tape, tape.origin)
    if not is_paced:
        return Feed(tape, lambda: pages, tasks)  # the price that was read last is the newest
    playing = replay.Playing(timeline, lines_counter=metrics.replay_lines)
    return Feed(playing, lambda: pages, [playing.run, *tasks])


def recording_of(settings: Settings) -> Recording:
    """The recording that the settings name."""
    further = {name: Pair(*names) for name, names in settings.further_pairs.items()}
    refuse_reserved("COTACOES_REPLAY_PAIRS", [pair.coin for pair in further.values()])
    return Recording(settings.replay_paths, price=settings.replay_price, pairs={**PAIRS, **further})


def _timeline(settings: Settings, folder: Path) -> tuple[replay.Timeline, PlaybackSession]:
    recording = recording_of(settings)
    recording.check()
    lap = replay.measure(recording) if settings.loop else None
    now = utc_now()

    def is_over(session: PlaybackSession) -> bool:
        return settings.source_mode == "latest" and _has_ended(session, now, recording, lap, settings.speed)

    session = load_or_begin(folder, digest_of(recording.digest, settings.loop, settings.replay_times), now, is_over)
    timeline = replay.Timeline(
        recording,
        speed=settings.speed,
        started_at=session.started_at,
        started_s=time.monotonic() - max(0.0, session.elapsed_s(now)),
        lap=lap,
        keeps_times=settings.replay_times == "original",
    )
    return timeline, session


def _has_ended(
    session: PlaybackSession, now: datetime, recording: Recording, lap: replay.Lap | None, speed: float
) -> bool:
    """Whether a poll would find no price of the session any more. (A tape that has ended has been read to its end.)"""
    elapsed_s = (now - session.started_at).total_seconds()
    if lap is not None:
        return elapsed_s < 0
    return not 0 <= elapsed_s <= replay.measure(recording).length_ns / 1e9 / speed


def _remembering(settings: Settings, folder: Path, played: Callable[[], PlaybackSession]) -> list[Task]:
    """The task that remembers how far a tape has come; its readers have a place in it."""
    return [lambda: remember_played(folder, played)] if settings.source_mode == "tape" else []
