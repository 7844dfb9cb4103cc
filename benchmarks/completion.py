"""What remembering keys and values gives when an image is completed, beside reading all pixels again for every one.

Both complete the lower half of the same images by the same model and seed, greedily, and have to write the same pixels.
The model is fresh but for a head at random: time does not depend on what was learned.

    python benchmarks/completion.py
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor

from orchard.inference.decoding import Decoder
from orchard.inference.kernels import build_kernels
from orchard.models import create_model


def with_cache(model: Any, colours: Tensor, kept: int) -> Tensor:
    """As `generate` does it; (R, T) from images whose first `kept` pixels stay."""
    decoder = Decoder(model, len(colours), colours.shape[1], precision="fp32", compiled=False)
    found = colours.clone()
    logits = decoder.prefill([[model.config.special, *row] for row in colours[:, :kept].tolist()])
    for place in range(kept, colours.shape[1]):
        found[:, place] = logits[: len(colours)].argmax(-1)
        if place + 1 < colours.shape[1]:
            logits = decoder.decode_step(torch.nn.functional.pad(found[:, place], (0, decoder.rows - len(colours))))
    return found


@torch.no_grad()
def recomputed(model: Any, colours: Tensor, kept: int) -> Tensor:
    """The same, each pixel from a forward pass over those before it."""
    found = colours.clone()
    for place in range(kept, colours.shape[1]):
        found[:, place] = model(model.as_input(found[:, : place + 1]))[:, -1].argmax(-1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="imagegpt_nano")
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--rows", type=int, default=4)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    build_kernels(print)
    model: Any = create_model(chosen.model, image_size=chosen.side).eval()
    torch.nn.init.normal_(model.head.weight)
    colours = torch.randint(model.config.vocabulary, (chosen.rows, model.config.context))
    kept = chosen.side // 2 * chosen.side
    sides = {"cache": with_cache, "recomputed": recomputed}
    with_cache(model, colours, kept)  # what is done once a process
    found, seconds = dict[str, Tensor](), dict[str, float]()
    for name, side in sides.items():
        began = time.perf_counter()
        found[name] = side(model, colours, kept)
        seconds[name] = time.perf_counter() - began
    if not torch.equal(found["cache"], found["recomputed"]):
        raise SystemExit("the two write other pixels")
    words = f"{chosen.model} at {chosen.side} x {chosen.side}, lower half of {chosen.rows} images"
    ratio = seconds["recomputed"] / seconds["cache"]
    print(f"{words}: {seconds['cache']:.2f} s, recomputed {seconds['recomputed']:.2f} s, {ratio:.1f} times as long")


if __name__ == "__main__":
    main()
