"""Does the fast model give the same answers? Counted on real pictures, with how near the answers were to a tie."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import torch

from orchard.data import Loader, open_data
from orchard.data.contracts import DataSettings
from orchard.errors import UsageError
from orchard.inference.fast import Precision, make_fast
from orchard.inference.loading import load


def agreement(
    run: Path, pictures: str, *, count: int = 512, batch: int = 8, precision: Precision = "auto"
) -> dict[str, Any]:
    """Top-1 agreement of a trained model made fast with itself in float32, on `count` pictures of a data set.

    `margin` is the median lead of the most likely class over the next, `error` the median over pictures of the largest
    difference between the two models' logits; where the first is not many times the second, answers are near-ties.
    """
    loaded = load(run)
    data = open_data(pictures, DataSettings())
    split = next(
        (data.splits[name] for name in ("test", "validation", "train") if len(data.splits[name]) >= count), None
    )
    if split is None:
        raise UsageError(f"{pictures} has no split of {count} pictures")
    loader = Loader(split, loaded.pictures, None, batch_size=batch, seed=0, workers=0)
    fast = None
    plain_logits, fast_logits = [], []
    with torch.no_grad():
        for found in islice(loader.batches(0), -(-count // batch)):
            fast = fast or make_fast(loaded.model, found.images, precision=precision)
            plain_logits.append(loaded.model(found.images).float())
            fast_logits.append(fast(found.images))
    expected, got = torch.cat(plain_logits)[:count], torch.cat(fast_logits)[:count]
    best, second = expected.topk(2).values.unbind(1)
    return {
        "pictures": len(expected),
        "agreement": float((expected.argmax(1) == got.argmax(1)).float().mean()),
        "margin": float((best - second).median()),
        "error": float((got - expected).abs().amax(1).median()),
        "precision": fast.precision if fast else "",
        "how": fast.how if fast else "",
    }
