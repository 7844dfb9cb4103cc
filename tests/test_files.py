"""Files and folders of ours: whole or not there, whoever writes beside, and nobody else's are touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from orchard.errors import OrchardError
from orchard.files import atomic, atomic_folder, locked


def test_a_link_that_lies_beside_is_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    (tmp_path / ".a.json.partial").symlink_to(theirs)
    os.link(theirs, tmp_path / ".a.json.partial1")
    with atomic(tmp_path / "a.json") as file:
        file.write(b"ours")
    assert (tmp_path / "a.json").read_text() == "ours"
    assert theirs.read_text() == "precious" and (tmp_path / ".a.json.partial").is_symlink()


def test_a_link_in_the_place_of_an_output_is_replaced_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    (tmp_path / "a.json").symlink_to(theirs)
    with atomic(tmp_path / "a.json") as file:
        file.write(b"ours")
    assert theirs.read_text() == "precious" and not (tmp_path / "a.json").is_symlink()


def test_two_that_write_one_file_leave_the_whole_of_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic(path) as first:
        first.write(b"first")
        with atomic(path) as second:
            second.write(b"second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and [one.name for one in tmp_path.iterdir()] == ["a"]


def test_what_a_kill_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").write_text("half")
    with atomic(tmp_path / "a") as file:
        file.write(b"whole")
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_modes_are_those_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic(tmp_path / "a") as file:
            file.write(b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with atomic(Path(f"/dev/fd/{writer}")) as file:
        file.write(b"words")
    assert os.read(reader, 10) == b"words"
    os.close(reader)
    os.close(writer)


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    out = tmp_path / "model"
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "half").write_text("of a kill")
    with pytest.raises(ValueError, match="broken"), atomic_folder(out) as folder:
        (folder / "weights").write_text("some")
        raise ValueError("broken")
    assert not list(tmp_path.iterdir())
    with atomic_folder(out) as folder:
        (folder / "weights").write_text("all")
        with pytest.raises(OrchardError, match="another process is making"), atomic_folder(out):
            pass
    assert [one.name for one in out.iterdir()] == ["weights"] and [one.name for one in tmp_path.iterdir()] == ["model"]


def test_one_process_at_a_time_goes_on_with_a_file(tmp_path: Path) -> None:
    with locked(tmp_path / "a", "busy") as file:
        file.write(b"x")
        with pytest.raises(OrchardError, match="busy"), locked(tmp_path / "a", "busy"):
            pass
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(OrchardError, match="is a link"), locked(tmp_path / "link", "busy"):
        pass
