"""Sessions that are kept: used when whole, made again when not, bounded in number."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from orchard.data.contracts import Preprocess
from orchard.inference import session as module
from orchard.inference.session import ABOUT, GRAPH, About, find_session, keep_session, session_folder, write_about
from orchard.models import create_model
from orchard.weights.portable import Portable, architecture_of, save_portable

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHARD_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = create_model("vit_nano", image_size=8, patch=4, width=16, depth=1, heads=2)
    means = (0.5,) * network.config.in_channels
    preprocess = Preprocess((8, 8), len(means), means, means).to_json()
    classes = tuple("0123456789")
    about = Portable("vit_nano", architecture_of(network), "image-classification", classes, preprocess)
    save_portable(tmp_path / "model", network, about)
    return tmp_path / "model"


def test_a_session_that_is_not_whole_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchard.inference.session_making import make_session

    started: list[object] = []
    monkeypatch.setenv("ORCHARD_KEEP_SESSIONS", "1")
    monkeypatch.setattr(module.subprocess, "Popen", lambda words, **_: started.append(words))
    monkeypatch.setattr("orchard.inference.session_making._median", lambda run: float(bool(run().sum())))
    assert find_session(folder) is None
    make_session(folder)
    kept = session_folder(folder)
    pixels = np.zeros((1, json.loads((folder / "config.json").read_text())["preprocess"]["channels"], 8, 8), np.uint8)
    session = find_session(folder)
    assert session is not None
    answers = session.answers(pixels)
    keep_session(folder)
    assert not started  # it is there
    graph, about = (kept / GRAPH).read_bytes(), (kept / ABOUT).read_text()
    without_sum = {key: value for key, value in json.loads(about).items() if key != "sha256"}
    broken = [
        (graph[:1000], about),
        (graph[:-1] + b"x", about),
        (b"", about),
        (graph, about[:40]),
        (graph, "[" * 99_999),
    ]
    broken += [(graph, json.dumps(without_sum))]  # as an earlier version wrote it
    for number, (graph_bytes, about_text) in enumerate(broken, 1):
        (kept / GRAPH).write_bytes(graph_bytes)
        (kept / ABOUT).write_text(about_text)
        assert find_session(folder) is None, number
        keep_session(folder)
        assert len(started) == number  # is made again
    (kept / ABOUT).unlink()
    assert find_session(folder) is None
    make_session(folder)
    again = find_session(folder)
    assert again is not None and np.allclose(again.answers(pixels), answers, atol=1e-6)


def test_a_graph_that_the_library_does_not_take_is_no_crash(folder: Path) -> None:
    kept = session_folder(folder)
    kept.mkdir(parents=True)
    (kept / GRAPH).write_bytes(b"another version's")
    preprocess = json.loads((folder / "config.json").read_text())["preprocess"]
    about = About(usable=True, why="", sha256=module.sum_of(kept / GRAPH), classes=("a",), preprocess=preprocess)
    write_about(kept, about)
    assert module.read_about(kept) == about
    assert find_session(folder) is None and not kept.exists()


def test_sessions_are_bounded_and_the_least_recently_used_go(folder: Path) -> None:
    root = session_folder(folder).parent
    about = About(usable=False, why="", sha256="", classes=(), preprocess={})
    for number in range(module.KEPT + 4):
        kept = root / f"{number:032}"
        kept.mkdir(parents=True)
        write_about(kept, about)
        if (root / f"{0:032}").exists():
            os.utime(root / f"{0:032}" / ABOUT)  # used all the time
        else:
            pytest.fail("what is used was removed")
        os.utime(kept / ABOUT, (number, number)) if number else None
    left = sorted(int(path.name) for path in root.iterdir())
    assert len(left) == module.KEPT and left[0] == 0 and left[1:] == list(range(5, module.KEPT + 4))
