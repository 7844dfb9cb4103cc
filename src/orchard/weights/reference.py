"""The other side of the proof: what a card names as reference, built, filled at random and run, or read from files.

A reference is the dotted path of a constructor (`torch.nn.Transformer`), in short `timm:NAME`, `torchvision:NAME` or
`hf:CLASS`, or `golden:CASE`, a folder of tensors that the official code computed.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.cards import Reference
from orchard.errors import OrchardError
from orchard.weights.adapters import adapter_of
from orchard.weights.golden import Stored, read_golden, read_meta
from orchard.weights.gradients import gradients_of, probe
from orchard.weights.nested import select

SHORT = {"timm": "timm", "torchvision": "torchvision.models", "hf": "transformers"}
SAMPLES = 2  # in the batch that both sides see


@dataclass(frozen=True)
class Case:
    """What the reference computed, and from what; outputs and losses by the paths of ours that they go with."""

    state: dict[str, Tensor]  # its weights and buffers under its own names
    inputs: dict[str, Tensor]  # arguments of our forward by name
    outputs: dict[str, Tensor]
    loss_inputs: dict[str, Tensor] = field(default_factory=dict)  # arguments of our loss by name
    losses: dict[str, Tensor] = field(default_factory=dict)
    probe: dict[str, Tensor] = field(default_factory=dict)  # the probe's gradient by each entry of `state`
    gradients: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # for losses, as far as they are stored


def reference_case(row: Reference, config: Any, inputs: dict[str, Tensor], seed: int, golden: Path) -> Case:
    """Run the reference that a card names on `inputs`, an example for our `config`; a golden case brings its own."""
    kind, _, name = row.reference.rpartition(":")
    if kind == "golden":
        return _golden_case(adapter_of(row.adapter).stored(read_golden(golden / name)), row)
    targets = adapter_of(row.adapter).targets(config, inputs, torch.Generator().manual_seed(seed))
    module = build_reference(row)
    call = _call_of(row, module, inputs, targets)
    randomise(module, call, seed)
    result = call()
    outputs = select(result, row.outputs, row.reference)
    losses = select(result, row.loss.outputs, row.reference) if row.loss else {}
    state = module.state_dict()
    scalar = probe(probed(outputs, losses))
    gradients: dict[str, Tensor] = {}
    if scalar is not None:
        found = gradients_of(module, scalar)
        gradients = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
        gradients |= {key: gradient for key, gradient in found.items() if gradient is not None and key in state}
    return Case(
        state=_weights(state, row.prefix),
        inputs=inputs,
        outputs={name: output.detach() for name, output in outputs.items()},
        loss_inputs={ours: (inputs | targets)[ours] for ours in row.loss.inputs} if row.loss else {},
        losses={name: loss.detach() for name, loss in losses.items()},
        probe=_weights(gradients, row.prefix),
    )


def probed(outputs: dict[str, Tensor], losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs and losses together, by names that cannot be the same."""
    return outputs | {f"loss.{name}": loss for name, loss in losses.items()}


def build_reference(row: Reference) -> nn.Module:
    """The network that a card's row names, with whatever weights its package starts from, in evaluation mode."""
    kind, _, name = row.reference.rpartition(":")
    if kind and kind not in SHORT:
        raise OrchardError(
            f"'{row.reference}' names no reference; expected a dotted path, or {', '.join(SHORT)} or golden, then :NAME"
        )
    build = adapter_of(row.adapter).build or partial(_build, kind, name)
    try:
        reference = build(**row.theirs)
    except ModuleNotFoundError as error:
        raise OrchardError(f"{row.reference} needs {error.name}: install it with pip install 'orchard[test]'") from None
    return reference.eval()


def _build(kind: str, name: str, **settings: Any) -> nn.Module:
    module: nn.Module
    if kind == "timm":
        module = importlib.import_module("timm").create_model(name, pretrained=False, **settings)
        return module
    package, _, last = f"{SHORT[kind]}.{name}".rpartition(".") if kind else name.rpartition(".")
    try:
        constructor = getattr(importlib.import_module(package), last)
    except (AttributeError, ValueError):
        raise OrchardError(f"there is no {package}.{last}; expected the dotted path of a constructor") from None
    if hasattr(constructor, "config_class"):  # as transformers' networks have: settings go through a configuration
        module = constructor(constructor.config_class(**settings))
    else:
        module = constructor(**settings)
    return module


def _call_of(
    row: Reference, module: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
) -> Callable[[], Any]:
    """The reference, ready to be run: with all inputs in their order, or by the names that the card gives."""
    adapter = adapter_of(row.adapter)
    if adapter.call is not None:
        return partial(adapter.call, module, inputs | targets)
    if not row.inputs:
        return partial(module, *inputs.values())
    tensors, arguments = inputs | targets, {}
    for ours, theirs in (*row.inputs.items(), *(row.loss.inputs.items() if row.loss else [])):  # one may go in twice
        if ours not in tensors:
            there = ", ".join(tensors)
            raise OrchardError(f"no input '{ours}' to give {row.reference} as '{theirs}'; there are {there}")
        arguments[theirs] = tensors[ours]
    return partial(module, **arguments)


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
        if not parameter.requires_grad:  # a table that follows from the configuration
            continue
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


def _golden_case(stored: Stored, row: Reference) -> Case:
    """Without names of inputs, the pictures: `in.images` or `in.images_nhwc`."""
    if row.inputs:
        inputs = {ours: stored.given(theirs) for ours, theirs in row.inputs.items()}
    elif "in.images_nhwc" in stored.tensors:
        inputs = {"images": stored.given("images_nhwc").permute(0, 3, 1, 2).contiguous()}  # → (B, C, H, W)
    else:
        inputs = {"images": stored.given("images")}
    case = Case(
        state=_weights(stored.state, row.prefix),
        inputs=inputs,
        outputs={ours: stored.computed(theirs) for ours, theirs in row.outputs.items()},
    )
    if row.loss is None:
        return case
    return dataclasses.replace(
        case,
        loss_inputs={ours: stored.given(theirs) for ours, theirs in row.loss.inputs.items()},
        losses={ours: stored.computed(theirs) for ours, theirs in row.loss.outputs.items()},
        gradients={ours: stored.below(theirs) for ours, theirs in row.loss.gradients.items()},
    )


def _weights(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it: one network of several that are stored together."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def origin_of(row: Reference, golden: Path) -> str:
    """Which code computed the reference: a package and its version, or a repository and its commit."""
    kind, _, name = row.reference.rpartition(":")
    if kind == "golden":
        meta = read_meta(golden / name)
        commit = re.sub(
            r"\b([0-9a-f]{12})[0-9a-f]{28}\b", r"\1", meta["commit"]
        )  # long hashes are cut, releases are not
        return f"{meta.get('repository') or meta['repo']} at {commit}"
    package = package_of(row.reference)
    version = str(getattr(importlib.import_module(package), "__version__", ""))
    return f"{package} {version.partition('+')[0]}".strip()  # without the build's local label


def package_of(reference: str) -> str:
    """The package that has the reference; `golden` where it was stored."""
    kind, _, name = reference.rpartition(":")
    return SHORT.get(kind, kind or name).partition(".")[0]
