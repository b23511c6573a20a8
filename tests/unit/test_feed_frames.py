"""Recorded frames: written and read byte for byte, rotated, and read as far as a file goes."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotacoes.errors import OutputError, SettingError
from cotacoes.feed_service.frames import FILE_AGE_MAX, Closed, Frame, FrameFiles, Line, Opened, frame_files, read_lines
from cotacoes.model.quote import format_time
from cotacoes.model.venue_symbols import VenueSymbol

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)


def lines(*frames: bytes) -> list[Line]:
    opened = Opened.of("kraken", AT, {"bitcoin": VenueSymbol("BTC/USD", "USD")})
    return [opened, *(Frame.of("kraken", AT, frame) for frame in frames), Closed(1, "kraken", format_time(AT), "cut")]


def written(folder: Path, *batches: Sequence[Line]) -> list[Path]:
    files = FrameFiles(folder)
    for batch in batches:
        files.write(batch)
    files.close()
    return frame_files([folder])


@given(st.lists(st.binary(max_size=200)))
def test_a_frame_is_read_back_byte_for_byte(frames: list[bytes]) -> None:
    assert [Frame.of("okx", AT, frame).data for frame in frames] == frames


def test_what_was_written_is_read_in_its_order(tmp_path: Path) -> None:
    all_lines = lines(b'{"a":1}', b"\xff\x00", b"pong")
    assert list(read_lines(written(tmp_path, all_lines))) == all_lines


def test_a_new_file_begins_every_hour(tmp_path: Path) -> None:
    later = [Frame.of("okx", AT + FILE_AGE_MAX, b"later")]
    files = written(tmp_path, lines(b"now"), [Frame.of("okx", AT + FILE_AGE_MAX / 2, b"still")], later)
    assert [path.name for path in files] == [
        "20261130T120000.000000Z.frames.gz",
        "20261130T130000.000000Z.frames.gz",
    ]
    assert list(read_lines(files[1:])) == later


def test_a_written_line_survives_a_kill_of_the_writer(tmp_path: Path) -> None:
    files = FrameFiles(tmp_path)
    files.write(lines(b"one"))  # and never closed
    assert len(list(read_lines(frame_files([tmp_path])))) == 3
    files.close()


@pytest.mark.slow
def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (path,) = written(tmp_path, lines(*(str(number).encode() * 50 for number in range(400))))
    whole = list(read_lines([path]))
    path.write_bytes(path.read_bytes()[:-40])
    read = list(read_lines([path]))
    assert 0 < len(read) < len(whole)
    assert read == whole[: len(read)]


def test_a_file_of_something_else_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.frames.gz"
    path.write_bytes(gzip.compress(b'{"v":1,"type":"quote"}\n'))
    with pytest.raises(SettingError, match=r"x\.frames\.gz: line 1 is no recorded frame"):
        list(read_lines([path]))


def test_a_folder_without_frames_is_refused_with_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cotacoes record --raw"):
        frame_files([tmp_path])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write into .*taken"):
        FrameFiles(tmp_path / "taken").write(lines(b"x"))


def test_two_lines_an_hour_apart_in_one_batch_go_into_two_files(tmp_path: Path) -> None:
    late = Frame.of("okx", AT + FILE_AGE_MAX + timedelta(seconds=1), b"late")
    assert len(written(tmp_path, [*lines(b"x"), late])) == 2
