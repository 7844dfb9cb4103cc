"""Every classifier that timm or torchvision has too, beside the peer, onnxruntime and OpenVINO, turn by turn.

A row is written when a model is done; called again, the models that have one are passed over, so that a long table can
be made in several sittings on one machine.

    python benchmarks/variants.py ROWS.jsonl [MODEL ...]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from orchard.cards import Reference, all_cards
from orchard.errors import OrchardError
from orchard.inference.cost import bytes_moved, multiply_adds
from orchard.inference.fast import pick_precision
from orchard.inference.hardware import cpu_name
from orchard.inference.timing import MATRIX, matrix_product, time_in_turn
from orchard.models import create_model, picture_size
from orchard.tasks.image_classification.engines import engine_sides
from orchard.tasks.image_classification.peers import inference_sides
from orchard.weights.official import load_official
from orchard.weights.reference import build_reference, randomise

BATCH, ROUNDS, COPIED = 8, 7, 1 << 26  # numbers in the tensor that is copied to measure the memory


def models_of_both() -> list[str]:
    """Names of our classifiers that timm or torchvision have under the same name, the small ones first."""
    import timm
    import torchvision

    known = {*timm.list_models(), *torchvision.models.list_models()}
    cards = [card for card in all_cards().values() if card.task == "image-classification"]
    sizes = {name: variant.macs for card in cards for name, variant in card.variants.items() if name in known}
    return sorted(sizes, key=lambda name: sizes[name])


def measure(name: str) -> dict[str, Any]:
    """Seconds a batch of each side, and what share of the arithmetic's and of the memory's rate ours reaches."""
    import timm

    library = "timm" if name in timm.list_models() else "torchvision"
    model = create_model(name).eval()
    config: Any = model.config
    precision = pick_precision("auto")
    torch.manual_seed(0)
    images = torch.randn(BATCH, config.in_channels, *picture_size(config))
    peer = build_reference(Reference(f"{library}:{name}", library, name))
    randomise(peer, lambda: peer(images), seed=0)
    load_official(model, peer.state_dict(), library)
    sides, how = inference_sides(model, peer, images, precision)
    with torch.inference_mode():
        expected = model(images)
    for engine in ("onnxruntime", "openvino"):
        sides[engine] = engine_sides(engine, model, images, expected)[0]["peer_best"]
    source, target = torch.randn(COPIED), torch.empty(COPIED)
    sides |= {"matrix": matrix_product(precision), "copy": lambda: target.copy_(source)}
    seconds = time_in_turn(sides, ROUNDS)
    arithmetic = 2 * multiply_adds(model, images.shape) / seconds["ours"] / (2 * MATRIX**3 / seconds["matrix"])
    memory = bytes_moved(model, images.shape) / seconds["ours"] / (8 * COPIED / seconds["copy"])
    row = {"name": name, "library": library, "how": how["ours"], "precision": precision, "cpu": cpu_name()}
    return {**row, "seconds": seconds, "arithmetic": arithmetic, "memory": memory}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: milliseconds a batch, and ratios above 1 where ours is faster."""
    lines = [
        "| model | ours | how | eager peer | peer at best | onnxruntime | OpenVINO | to the fastest | of the limit |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        seconds = row["seconds"]
        sides = [seconds[side] for side in ("peer_default", "peer_best", "onnxruntime", "openvino")]
        limit = max(("arithmetic", "memory"), key=lambda rate: row[rate])
        shown = " | ".join(f"{1e3 * side:.1f}" for side in sides)
        lines.append(
            f"| {row['name']} ({row['library']}) | {1e3 * seconds['ours']:.1f} | {row['how']} | {shown} "
            f"| {min(sides) / seconds['ours']:.2f} | {row[limit]:.0%} {limit} |"
        )
    return "\n".join(lines)


def main(path: Path, names: list[str]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {row["name"] for row in rows}
    for name in names or models_of_both():
        if name in done:
            continue
        with tempfile.TemporaryDirectory() as cache:  # nothing that was timed and kept before decides
            os.environ["ORCHARD_CACHE"] = cache
            try:
                row = measure(name)
            except OrchardError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
        rows.append(row)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(table([row]).splitlines()[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
