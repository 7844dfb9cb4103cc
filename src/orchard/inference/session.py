"""A classifier as an onnxruntime session that is kept for this machine, so that one image needs no torch.

A first prediction leaves a process behind that writes the model as ONNX, compares its answers with the model's own, and
times both. Later calls with few images use the session where it was found equal and not slower. What is written of it
last has the sum of the graph: one that was cut or changed is made again. Read without torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from orchard.cache import cache_folder
from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError
from orchard.files import read_as, remove, write_json
from orchard.inference.outputs import Outputs, outputs_of
from orchard.weights.folders import CONFIG, weights_file

KIND = "sessions"  # as `cache_folder` knows it
GRAPH, ABOUT = "model.onnx", "session.json"
KEPT = 16  # sessions in the cache; the least recently used go
SWITCH = "ORCHARD_KEEP_SESSIONS"  # 0: no process is left behind


class About(BaseModel):
    """What stands beside the graph."""

    model_config = ConfigDict(extra="forbid")

    usable: bool  # equal to the model, and not slower
    why: str
    sha256: str  # of the graph; "" where there is none
    classes: tuple[str, ...]
    preprocess: dict[str, Any]
    facts: dict[str, Any] = {}  # what else its outputs are to be read with


@dataclass(frozen=True)
class Session:
    """A graph that answers for images: (B, C, H, W) uint8 to probabilities, or numbers, (B, K)."""

    graph: Path
    about: About

    @property
    def preprocess(self) -> Preprocess:
        return Preprocess.from_json(self.about.preprocess)

    @cached_property
    def runtime(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        return onnxruntime.InferenceSession(str(self.graph), options, providers=["CPUExecutionProvider"])

    @cached_property
    def outputs(self) -> Outputs:
        """What its outputs say; OrchardError for facts that are not of their form."""
        return outputs_of(self.about.classes, self.about.facts, self.graph.with_name(ABOUT))

    def answers(self, pixels: np.ndarray) -> np.ndarray:
        """(B, C, H, W) uint8 to (B, K) float64: probabilities of classes, or numbers."""
        p = self.preprocess
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (p.mean, p.std))
        images = (pixels.astype(np.float32) - mean * 255) * (1 / (std * 255))
        return self.outputs.answers(self.runtime.run(None, {"images": images})[0].astype(np.float64))


def session_folder(folder: Path) -> Path:
    """Where the session of a model folder is kept: named by the files of the model as they are now.

    Raises OrchardError for a cache that others could have written into.
    """
    files = (folder / CONFIG, weights_file(folder))
    stamps = [(path.name, (s := path.stat()).st_size, s.st_mtime_ns) for path in files]
    name = hashlib.sha256(repr((str(folder.resolve()), stamps)).encode()).hexdigest()[:32]
    return cache_folder(KIND) / name


def find_session(folder: Path) -> Session | None:
    """The session that is kept for a model folder; None where there is none, or none of use.

    Raises OrchardError for a cache that others could have written into.
    """
    try:
        kept = session_folder(folder)
    except OSError:
        return None
    about = read_about(kept) if find_spec("onnxruntime") else None
    if about is None or not about.usable:
        return None
    session = Session(kept / GRAPH, about)
    try:
        session.runtime  # noqa: B018 opened here, as another version of the library may not take the graph
    except Exception:  # of a library whose errors have no common type
        remove(kept)
        return None
    with contextlib.suppress(OSError):  # a cache that is only read
        os.utime(kept / ABOUT)
    return session


def read_about(kept: Path) -> About | None:
    """What was found of a session, where all of it is there as it was written."""
    try:
        about = read_as(kept / ABOUT, About)
        return about if sum_of(kept / GRAPH) == about.sha256 else None
    except (OrchardError, OSError):
        return None


def sum_of(graph: Path) -> str:
    """The sha256 of a graph, "" where there is none."""
    if not graph.is_file():
        return ""
    with graph.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_session(folder: Path) -> None:
    """Leave a process behind that makes the session of a model folder, where it can be made and was not tried yet."""
    try:
        tried = read_about(session_folder(folder)) is not None
    except OSError:
        return
    needed = all(find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))
    if tried or not needed or os.environ.get(SWITCH) == "0":
        return
    nowhere = subprocess.DEVNULL
    subprocess.Popen(
        [sys.executable, "-m", "orchard.inference.session_making", str(folder.resolve())],
        stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True,
    )  # fmt: skip


def write_about(kept: Path, about: About) -> None:
    """What was found, written whole and last; of other sessions, those that were not used for longest are removed."""
    write_json(kept / ABOUT, json.loads(about.model_dump_json()))
    used = {path: _last_used(path) for path in kept.parent.iterdir() if path != kept and path.is_dir()}
    for old in sorted(used, key=lambda path: -used[path])[KEPT - 1 :]:
        with contextlib.suppress(OSError):
            remove(old)


def _last_used(kept: Path) -> float:
    """When a session was used or begun; long ago where another process removes it now."""
    with contextlib.suppress(OSError):
        return (kept / ABOUT if (kept / ABOUT).exists() else kept).stat().st_mtime
    return 0.0
