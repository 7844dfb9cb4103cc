"""The other side of the proof: what a card names as reference, built, filled at random and run.

A reference is `timm:NAME`, `torchvision:NAME`, `hf:CLASS` (a network of an installed package) or `golden:CASE`
(a folder of tensors that the official code computed, for code that no test can run).
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.cards import Reference
from orchard.errors import OrchardError
from orchard.weights.portable import read_tensors

GOLDEN = Path(__file__).parents[3] / "tests" / "golden"
PACKAGES = {"timm": "timm", "torchvision": "torchvision.models", "hf": "transformers"}
SAMPLES = 2  # in the batch that both sides see


@dataclass(frozen=True)
class Case:
    """What the reference computed, and from what."""

    state: dict[str, Tensor]  # its weights and buffers under its own names
    inputs: dict[str, Tensor]  # arguments of our forward by name
    outputs: dict[str, Tensor]  # by the field of ours that each is compared with
    gradients: dict[str, Tensor] | None  # of `loss_of` by each entry of `state`; none from stored tensors


def loss_of(outputs: Mapping[str, Tensor]) -> Tensor:
    """The loss whose gradients both sides are compared on: cross-entropy over the last axis, row n being of class n."""
    rows = [output.flatten(0, -2) for output in outputs.values()]
    losses = [F.cross_entropy(row, torch.arange(len(row)) % row.shape[1]) for row in rows]
    return torch.stack(losses).sum()


def outputs_of(result: Any, names: Iterable[str]) -> dict[str, Tensor]:
    """The fields of what a model returned; the empty name is the tensor itself."""
    return {name: getattr(result, name) if name else result for name in names}


def reference_case(row: Reference, inputs: dict[str, Tensor], seed: int, golden: Path) -> Case:
    """Run the reference that a card names on `inputs` (a golden case brings its own)."""
    kind, _, name = row.reference.partition(":")
    if kind == "golden":
        return _golden_case(golden / name, row)
    module = build_reference(row)
    arguments = {row.inputs[name]: tensor for name, tensor in inputs.items()} if row.inputs else inputs
    positional = [] if row.inputs else list(arguments.values())
    call = partial(module, *positional, **(arguments if row.inputs else {}))
    randomise(module, call, seed)
    result = call()
    outputs = {ours: _field(result, theirs) for ours, theirs in row.outputs.items()}
    gradients = {key: torch.zeros_like(tensor) for key, tensor in module.state_dict().items()}
    parameters = dict(module.named_parameters())
    found = torch.autograd.grad(loss_of(outputs), list(parameters.values()), allow_unused=True)
    gradients |= {key: gradient for key, gradient in zip(parameters, found, strict=True) if gradient is not None}
    return Case(module.state_dict(), inputs, {name: o.detach() for name, o in outputs.items()}, gradients)


def build_reference(row: Reference) -> nn.Module:
    """The network that a card's row names, with whatever weights its package starts from, in evaluation mode."""
    kind, _, name = row.reference.partition(":")
    if kind not in PACKAGES:
        raise OrchardError(
            f"'{row.reference}' names no reference; expected {', '.join(PACKAGES)} or golden, then :NAME"
        )
    try:
        package = importlib.import_module(PACKAGES[kind])
    except ImportError:
        raise OrchardError(
            f"{row.reference} needs {PACKAGES[kind]}: install it with pip install 'orchard[test]'"
        ) from None
    if kind == "timm":
        module = package.create_model(name, pretrained=False, **row.theirs)
    elif kind == "torchvision":
        module = getattr(package, name)(**row.theirs)
    else:
        constructor = getattr(package, name)
        module = constructor(constructor.config_class(**row.theirs))
    reference: nn.Module = module.eval()
    return reference


def _field(result: Any, name: str) -> Tensor:
    """What a reference calls `name`; a reference that returns a tensor has nothing else."""
    found: Tensor = result if isinstance(result, Tensor) else getattr(result, name)
    return found


@torch.no_grad()
def randomise(module: nn.Module, call: Callable[[], Any], seed: int) -> None:
    """Fill every weight and every running mean and variance, so that each has a say in the output.

    Fresh networks start from zero biases, unit gains and sometimes a head of zeros, under which two different
    networks can agree. After the draw every linear map and convolution is scaled so that what it gives in `call` (the
    network run on some input) has a spread of one, else the signal of a deep network without norms would fade to
    nothing and any two would agree.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=generator)

    for name, parameter in module.named_parameters():
        last = name.rpartition(".")[2]
        if parameter.ndim > 1 and len(parameter) > 1:
            parameter.copy_(normal(parameter.shape) * (len(parameter) / parameter.numel()) ** 0.5)  # 1 / √fan-in
        elif parameter.ndim > 1:  # tables and tokens with a batch axis in front
            parameter.copy_(0.5 * normal(parameter.shape))
        elif "bias" in last:
            parameter.copy_(0.1 * normal(parameter.shape))
        else:
            parameter.copy_(1 + 0.2 * normal(parameter.shape))
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * normal(buffer.shape))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
        elif name.endswith("num_batches_tracked"):
            buffer.fill_(seed + 7)
    for norm in module.modules():  # whose gain and bias are no parameters: frozen batch norms
        if "running_var" in norm._buffers and "weight" in norm._buffers:
            norm.get_buffer("weight").copy_(1 + 0.2 * normal(norm.get_buffer("weight").shape))
            norm.get_buffer("bias").copy_(0.1 * normal(norm.get_buffer("bias").shape))

    def scale(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        spread = output.std()
        if not spread > 0:
            return output
        for parameter in layer.parameters(recurse=False):
            parameter.div_(spread)
        return output / spread

    linear_maps = [m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    hooks = [layer.register_forward_hook(scale) for layer in linear_maps]
    call()
    for hook in hooks:
        hook.remove()


def _golden_case(folder: Path, row: Reference) -> Case:
    """Stored tensors: `params`, and in `io` inputs and outputs under the names that the card gives.

    Without names, the pictures: `in.images` or `in.images_nhwc`.
    """
    if not (folder / "meta.json").is_file():
        raise OrchardError(f"the golden case {folder} is missing; name the folder that holds it with --golden")
    tensors: Mapping[str, Tensor] = read_tensors(folder / "io.safetensors")
    if row.inputs:
        inputs = {ours: tensors[f"in.{theirs}"] for ours, theirs in row.inputs.items()}
    elif "in.images_nhwc" in tensors:
        inputs = {"images": tensors["in.images_nhwc"].permute(0, 3, 1, 2).contiguous()}  # (B, H, W, C) → (B, C, H, W)
    else:
        inputs = {"images": tensors["in.images"]}
    outputs = {ours: tensors[f"out.{theirs}"] for ours, theirs in row.outputs.items()}
    return Case(read_tensors(folder / "params.safetensors"), inputs, outputs, None)


def origin_of(row: Reference, golden: Path) -> str:
    """Which code computed the reference: a package and its version, or a repository and its commit."""
    kind, _, name = row.reference.partition(":")
    if kind == "golden":
        meta = json.loads((golden / name / "meta.json").read_text(encoding="utf-8"))
        commit = re.sub(
            r"\b([0-9a-f]{12})[0-9a-f]{28}\b", r"\1", meta["commit"]
        )  # long hashes are cut, releases are not
        return f"{meta.get('repository') or meta['repo']} at {commit}"
    package = PACKAGES[kind].partition(".")[0]
    version = str(importlib.import_module(package).__version__)
    return f"{package} {version.partition('+')[0]}"  # without the build's local label
