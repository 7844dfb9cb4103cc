"""Speed of classifiers beside their peers.

Both sides get the same weights, are shown to compute the same thing, and are then timed turn by turn in one process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.cards import Reference, card_of
from orchard.errors import UsageError, unknown
from orchard.inference.cost import multiply_adds
from orchard.inference.engines import ENGINES
from orchard.inference.fast import TOLERANCE, Precision, make_fast, pick_precision
from orchard.inference.timing import (
    MATRIX,
    Side,
    check,
    compared,
    matrix_product,
    steps_of_pictures,
    time_in_turn,
)  # fmt: skip
from orchard.models import create_model, picture_size
from orchard.tasks.image_classification.engines import engine_sides
from orchard.weights.official import load_official
from orchard.weights.reference import build_reference, randomise

Mode = Literal["inference", "training"]


def bench_classifier(
    name: str,
    against: str,
    mode: Mode = "inference",
    *,
    batch: int = 8,
    precision: Precision = "auto",
    rounds: int = 11,
) -> dict[str, Any]:
    """Time variant `name` beside `against`: timm, torchvision or transformers, or with a name: timm:resnet50.

    inference: ours is what `predict` uses for large work. training: one step (forward, cross entropy, backward, AdamW)
    with `train`'s own choices. The peer as documented runs eagerly in float32; at its best it has every public switch
    that helps. Returns the medians in seconds per batch, pictures per second, ratios above 1 where ours is faster,
    and the share of this machine's matrix product rate that ours reaches. Raises OrchardError where the sides disagree.
    """
    if against in ENGINES:
        return bench_engine(name, against, batch=batch, precision=precision, rounds=rounds)
    source, reference = peer_of(name, against)
    chosen = pick_precision(precision)
    model = create_model(name).eval()
    config: Any = model.config
    size = picture_size(config)
    torch.manual_seed(0)
    images = torch.randn(batch, config.in_channels, *size)
    peer = build_reference(Reference(reference, source, name, theirs=_peer_settings(reference, config)))
    randomise(peer, lambda: peer(images), seed=0)
    load_official(model, peer.state_dict(), source)
    if mode == "inference":
        sides, how = inference_sides(model, peer, images, chosen)
        passes = 1
    else:
        sides, how = training_sides(model, peer, images, chosen, config.num_classes)
        passes = 3  # forward, and backward to the input and to the weights of each layer
    sides["matrix"] = matrix_product(chosen)
    medians = time_in_turn(sides, rounds)
    rate = 2 * MATRIX**3 / medians["matrix"]
    operations = 2 * passes * multiply_adds(model, images.shape)
    facts = {"mode": mode, "precision": chosen, "batch": batch, "rounds": rounds}
    return {
        **compared(name, reference, medians, how, samples=batch),
        **facts,
        "matrix_rate": rate,
        "limit_fraction": operations / medians["ours"] / rate,
    }


def bench_engine(name: str, engine: str, *, batch: int, precision: Precision, rounds: int) -> dict[str, Any]:
    """Time variant `name` beside itself under an inference engine, which runs it in float32."""
    chosen = "fp32" if precision == "auto" else precision
    model = create_model(name).eval()
    config: Any = model.config
    torch.manual_seed(0)
    images = torch.randn(batch, config.in_channels, *picture_size(config))
    randomise(model, lambda: model(images), seed=0)
    with torch.inference_mode():
        expected = model(images)
    fast = make_fast(model, images, precision=chosen)
    check("ours made fast", fast(images), expected, TOLERANCE[chosen])
    sides, how = engine_sides(engine, model, images, expected)

    def eager() -> Tensor:
        with torch.inference_mode():
            return model(images)

    sides = {"ours": lambda: fast(images), **sides, "eager": eager, "matrix": matrix_product(chosen)}
    medians = time_in_turn(sides, rounds)
    rate = 2 * MATRIX**3 / medians["matrix"]
    how = {"ours": f"{fast.precision}, {fast.how}", **how}
    return {
        **compared(name, engine, medians, how, samples=batch),
        "mode": "inference",
        "precision": chosen,
        "batch": batch,
        "rounds": rounds,
        "eager_s": medians["eager"],
        "matrix_rate": rate,
        "limit_fraction": 2 * multiply_adds(model, images.shape) / medians["ours"] / rate,
    }


def peer_of(name: str, against: str) -> tuple[str, str]:
    """The name table to use and the reference's full name, from what a person wrote after --against."""
    library, _, inner = against.partition(":")
    library = {"transformers": "hf"}.get(library, library)
    if library not in ("timm", "torchvision", "hf"):
        raise unknown("peer", against, ["timm", "torchvision", "transformers"])
    if not inner and library == "hf":
        classes = {row.reference for row in card_of(name).references if row.reference.startswith("hf:")}
        if not classes:
            raise UsageError(f"the card of {name} names no class of transformers; write --against hf:CLASS")
        return "hf", sorted(classes)[0]
    if library == "torchvision":
        import torchvision

        known = torchvision.models.list_models()
        if (inner or name) not in known:
            raise UsageError(f"{unknown('torchvision model', inner or name, known)}; write --against torchvision:NAME")
    return library, f"{library}:{inner or name}"


def _peer_settings(reference: str, config: Any) -> dict[str, Any]:
    """transformers sizes its classifier for two classes where nobody says how many there are."""
    return {"num_labels": config.num_classes} if reference.startswith("hf:") else {}


def inference_sides(
    model: nn.Module, peer: nn.Module, images: Tensor, precision: str
) -> tuple[dict[str, Side], dict[str, str]]:
    """What is timed, and in words how each side runs; all of it compared with the peer in float32 first."""
    documented = _logits_of(peer)
    with torch.inference_mode():
        expected = documented(images)
        check("ours in float32", model(images), expected, TOLERANCE["fp32"])
    ours = make_fast(model, images, precision=precision)  # type: ignore[arg-type]
    check("ours made fast", ours(images), expected, TOLERANCE[precision])
    best, switches = best_peer(peer, images, expected, precision)

    def default() -> Tensor:
        with torch.inference_mode():
            return documented(images)

    sides: dict[str, Side] = {"ours": lambda: ours(images), "peer_best": best, "peer_default": default}
    return sides, {"ours": f"{ours.precision}, {ours.how}", "peer_best": switches, "peer_default": "eager float32"}


def best_peer(peer: nn.Module, images: Tensor, expected: Tensor, precision: str) -> tuple[Side, str]:
    """The peer under each set of switches that may help it; the fastest of three calls wins."""
    found: dict[str, Side] = {}
    packed = images.contiguous(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    cast = copy.deepcopy(peer).to(memory_format=torch.channels_last).to(dtype)  # type: ignore[call-overload]
    plain = copy.deepcopy(peer).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled_cast = torch.compile(_logits_of(cast), options={"freezing": True})
    compiled_plain = torch.compile(_logits_of(plain), options={"freezing": True})

    def call(run: Callable[[Tensor], Tensor], input_: Tensor, autocast: bool) -> Side:
        def once() -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                return run(input_)

        return once

    found["channels-last, compiled, frozen, weights in " + precision] = call(compiled_cast, packed.to(dtype), False)
    if precision == "bf16":
        found["channels-last, compiled, frozen, autocast to bf16"] = call(compiled_plain, packed, True)
        found["channels-last, eager, weights in bf16"] = call(_logits_of(cast), packed.to(dtype), False)
    for how, side in found.items():
        check(f"the peer ({how})", side(), expected, TOLERANCE[precision])  # type: ignore[arg-type]
    medians = time_in_turn(found, rounds=3)
    best = min(medians, key=lambda how: medians[how])
    return found[best], best


def training_sides(
    model: nn.Module, peer: nn.Module, images: Tensor, precision: str, classes: int
) -> tuple[dict[str, Side], dict[str, str]]:
    """One optimizer step of each side; the float32 losses of both are compared first."""
    labels = torch.arange(len(images)) % classes
    documented = _logits_of(peer)
    with torch.no_grad():
        check("ours in float32", model(images), documented(images), TOLERANCE["fp32"])

    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        return F.cross_entropy(_logits_of(network)(batch).float(), labels)

    return steps_of_pictures(model, loss, peer, loss, images, precision)


def _logits_of(peer: nn.Module) -> Callable[[Tensor], Tensor]:
    """transformers wraps its logits in an object; the others give them as they are."""

    def logits(images: Tensor) -> Tensor:
        out = peer(images)
        found: Tensor = out if isinstance(out, Tensor) else out.logits
        return found

    return logits


def bench(
    name: str, against: str, mode: Any, *, batch: int | None, precision: Any, rounds: int | None, tokens: int
) -> dict[str, Any]:
    """Time inference, or a training step."""
    if mode == "generation":
        raise UsageError(f"{name} classifies images; --mode inference and --mode training are timed")
    if mode == "training" and against in ENGINES:
        raise UsageError(f"{against} does not train; it is timed with --mode inference")
    return bench_classifier(name, against, mode, batch=batch or 8, precision=precision, rounds=rounds or 11)
