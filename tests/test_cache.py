"""The cache, from which code is loaded: nobody else can have written there, and a file is opened as it was written."""

import os
import time
from pathlib import Path

import pytest
import torch

from orchard.cache import cache_folder, drop, is_kept, keep, scratch
from orchard.cards import all_cards
from orchard.errors import OrchardError
from orchard.inference import fast, kernels
from orchard.inference.session import find_session


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def test_it_is_its_owner_s_alone_whatever_the_umask(cache: Path) -> None:
    before = os.umask(0)
    try:
        folder = cache_folder("compiled")
    finally:
        os.umask(before)
    assert folder == cache / "compiled"
    assert [path.stat().st_mode & 0o777 for path in (folder, cache, cache.parent)] == [0o700] * 3


@pytest.mark.parametrize("place", ["root", "kind"])
@pytest.mark.parametrize(("mode", "why"), [(0o777, "0777"), (0o770, "0770"), ("link", "a link"), ("owner", "user ")])
def test_a_cache_that_others_could_write_to_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, place: str, mode: int | str, why: str
) -> None:
    folder = cache_folder("compiled")
    bad = cache if place == "root" else folder
    if mode == "link":
        bad.rename(cache.parent / "elsewhere")
        bad.symlink_to(cache.parent / "elsewhere")
    elif mode == "owner":
        monkeypatch.setattr(os, "getuid", lambda: 4321)
    else:
        bad.chmod(mode)
    with pytest.raises(OrchardError, match=rf"the cache {cache if mode == 'owner' else bad} is not used: .*{why}"):
        cache_folder("compiled")


def test_nothing_is_loaded_from_such_a_cache(cache: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    cache_folder("sessions")
    cache.chmod(0o777)
    calls = (
        kernels.native_kernels.__wrapped__,
        lambda: kernels.build_kernels(print),
        lambda: fast.make_fast(torch.nn.Linear(2, 2), torch.zeros(1, 2), precision="fp32"),
        lambda: find_session(tmp_path),
    )
    for call in calls:
        with pytest.raises(OrchardError, match="others may write to it"):
            call()


def test_a_file_that_was_changed_or_put_there_by_others_is_not_opened(cache: Path) -> None:
    folder = cache_folder("compiled")
    place = folder / "kernels.so"
    (folder / "made").write_bytes(b"\x7fELF and more")
    keep(folder / "made", place)
    assert is_kept(place) and sorted(path.name for path in folder.iterdir()) == ["kernels.so", "kernels.so.sha256"]
    for damage in (b"\x7fELF", b"", b"\x7fELF and mor."):
        place.write_bytes(damage)
        assert not is_kept(place)
    place.write_bytes(b"\x7fELF and more")
    assert is_kept(place)
    place.chmod(0o666)
    assert not is_kept(place)
    drop(place)
    assert not is_kept(place) and not list(folder.iterdir())


def test_a_cut_library_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.shutil, "which", lambda _: "c++")
    made, loaded = [], []

    def build(command: list[str], **_: object) -> None:
        made.append(command)
        Path(command[-1]).write_bytes(b"a library")

    monkeypatch.setattr(kernels.subprocess, "run", build)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: loaded.append(path.read_bytes()))
    monkeypatch.setattr(torch.library, "register_fake", lambda _: lambda function: function)
    for _ in range(2):
        assert kernels.native_kernels.__wrapped__()
    (library,) = cache.glob("compiled/kernels-*.so")
    library.write_bytes(b"a lib")  # a copy that was cut, which ends a process that opens it
    assert kernels.native_kernels.__wrapped__()
    assert len(made) == 2 and loaded == [b"a library"] * 3


def test_what_a_killed_compilation_left_goes(cache: Path) -> None:
    folder = cache_folder("compiled")
    with scratch(folder) as alive:
        left = [folder / f"making-{n}" for n in range(2)]
        for path in left:
            path.mkdir()
            (path / "half.so").touch()
        for path in (left[0], alive):
            os.utime(path, (time.time() - 3600,) * 2)
        with scratch(folder) as own:
            assert alive.exists() and own.exists() and left[1].exists()  # left[1] may be about to be locked
            assert not left[0].exists()
    assert sorted(folder.iterdir()) == [left[1]]


def test_without_a_home_the_cache_says_so_and_the_cards_are_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ORCHARD_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OrchardError, match="name a folder of your own in ORCHARD_CACHE"):
        cache_folder("codes")
    all_cards.cache_clear()
    assert "lenet" in all_cards()
