"""Makes the session of a model folder: python -m orchard.inference.session_making FOLDER

It is started by a first prediction and runs in the background, at low priority.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from orchard.errors import OrchardError
from orchard.inference.export import Entry, export_onnx, image_inputs
from orchard.inference.loading import load
from orchard.inference.session import ABOUT, GRAPH, About, Session, session_folder, sum_of, write_about
from orchard.nn.quantized import quantized_layers

ROUNDS = 15
TOLERANCE = 1e-4  # of the largest difference between two answers, relative to the largest if that is over 1
INT8_TOLERANCE = 5e-2  # the same with int8 layers, where rounding decides between two numbers


def make_session(folder: Path) -> About:
    """Export the classifier in `folder`, compare it with the model, time both, and keep what was found."""
    kept = session_folder(folder)
    kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    loaded = load(folder)
    facts = {"classes": loaded.classes, "preprocess": loaded.pictures.to_json(), "facts": dict(loaded.facts)}
    unusable = {"usable": False, "sha256": "", **facts}
    (kept / ABOUT).unlink(missing_ok=True)  # of a graph that is not whole, or of an earlier form
    (kept / GRAPH).unlink(missing_ok=True)
    try:
        export_onnx(Entry("", loaded.model, image_inputs(loaded), "logits"), kept / GRAPH)
    except OrchardError as error:
        about = About(why=str(error), **unusable)  # type: ignore[arg-type]
        write_about(kept, about)
        return about
    why = "equal to the model and not slower"
    about = About(usable=True, why=why, sha256=sum_of(kept / GRAPH), **facts)  # type: ignore[arg-type]
    session = Session(kept / GRAPH, about)
    pixels = np.random.default_rng(0).integers(0, 256, (1, loaded.pictures.channels, *loaded.pictures.size), np.uint8)

    def plain() -> np.ndarray:
        with torch.inference_mode():
            images = loaded.pictures.normalise(torch.from_numpy(pixels).clone())
            return session.outputs.answers(loaded.model(images).double().numpy())

    expected = plain()
    difference = float(np.abs(session.answers(pixels) - expected).max())
    seconds = [_median(run) for run in (lambda: session.answers(pixels), plain)]
    allowed = INT8_TOLERANCE if quantized_layers(loaded.model) else TOLERANCE
    if not difference <= allowed * max(1.0, float(np.abs(expected).max())):
        about = About(why=f"differs by {difference:.2g}", **unusable)  # type: ignore[arg-type]
    elif seconds[0] > 1.1 * seconds[1]:
        about = About(why=f"slower: {seconds[0]:.3g} s for {seconds[1]:.3g} s", **unusable)  # type: ignore[arg-type]
    if not about.usable:
        (kept / GRAPH).unlink()
    write_about(kept, about)
    return about


def _median(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    os.nice(10)
    make_session(Path(sys.argv[1]))
