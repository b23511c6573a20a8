"""`observability/whole_file.py`: a file is replaced as a whole, or stays as it was."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cotacoes.observability.whole_file import OWNER_ONLY, replace_file


def test_a_file_is_replaced_as_a_whole_and_no_draft_is_left(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    replace_file(file, b"the first, which is longer")
    replace_file(file, b"the second")
    assert file.read_bytes() == b"the second"
    assert list(tmp_path.iterdir()) == [file]


def test_a_secret_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    replace_file(tmp_path / "token.secret", b"secret", mode=OWNER_ONLY)
    assert stat.S_IMODE((tmp_path / "token.secret").stat().st_mode) == OWNER_ONLY


def test_a_file_whose_successor_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b"old")
    (tmp_path / "state.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"
