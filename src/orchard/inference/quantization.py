"""From a trained classifier to its int8 copy: which layers, and what their activations reach on some images.

The exported graph says what no list of modules does: which norm follows which convolution and nothing else, and whose
output is added to another. Norms go into the convolutions before them. How far activations reach is seen on calibration
images; the range that loses least in mean square is taken, not the largest (torch's HistogramObserver).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization.observer import HistogramObserver

from orchard.errors import UsageError
from orchard.nn.quantized import Grid, Grids, Rounded, can_be_quantized, fold_norm, to_int8, to_rounded
from orchard.weights.quantized import Quantization

ATEN = torch.ops.aten
LAYERS = (ATEN.conv2d.default, ATEN.conv2d.padding, ATEN.linear.default)
ADDITIONS = (ATEN.add.Tensor, ATEN.add_.Tensor)


@dataclass(frozen=True)
class Found:
    """What the graph says of a layer: the batch norm behind it, if there is one, and whether the result is added."""

    norm: str | None
    added: bool


def quantize(model: nn.Module, images: Iterable[Tensor]) -> tuple[nn.Module, Quantization]:
    """A copy of the model in eight bits, calibrated on batches of images (B, C, H, W), normalised; and what is done.

    Raises UsageError for a model without a layer that can be quantized.
    """
    model, grids, norms = _calibrated(model, images)
    to_int8(model, grids)
    return model.eval(), Quantization.of(grids, norms, learned=False)


def round_while_learning(model: nn.Module, images: Iterable[Tensor]) -> tuple[nn.Module, dict[str, str]]:
    """A copy of the model that learns with the rounding of `quantize` in it, and the norms that layers hold."""
    model, grids, norms = _calibrated(model, images)
    to_rounded(model, grids)
    return model, norms


def learned_int8(model: nn.Module, norms: dict[str, str]) -> tuple[nn.Module, Quantization]:
    """The int8 copy of a model that has learned with the rounding."""
    model = copy.deepcopy(model)
    grids = {name: layer.grids for name, layer in model.named_modules() if isinstance(layer, Rounded)}
    to_int8(model, grids)
    return model.eval(), Quantization.of(grids, norms, learned=True)


def _calibrated(model: nn.Module, images: Iterable[Tensor]) -> tuple[nn.Module, dict[str, Grids], dict[str, str]]:
    """A copy with its norms folded, the grids of its layers, and the names of those norms."""
    batches = list(images)
    model = copy.deepcopy(model).eval()
    found = read_graph(model, batches[0])
    norms = {name: layer.norm for name, layer in found.items() if layer.norm}
    for name, norm in norms.items():
        fold_norm(model, name, norm)
    grids = calibrate(model, found, batches)
    if not grids:
        raise UsageError(f"{type(model).__name__} has no convolution and no linear layer that can be quantized")
    return model, grids, {name: norm for name, norm in norms.items() if name in grids}


def read_graph(model: nn.Module, images: Tensor) -> dict[str, Found]:
    """The layers of a model (in evaluation mode) that can be in eight bits, by their names.

    A layer counts whose weights go into convolutions or matrix products as they are, and nowhere else.
    """
    batch = torch.cat([images, images])[:2]  # of one image a dimension would be taken for a constant
    program = torch.export.export(model, (batch,))
    names = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    calls: dict[str, list[Any]] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and str(names.get(node.name, "")).endswith(".weight"):
            layer = names[node.name].removesuffix(".weight")
            if not can_be_quantized(model.get_submodule(layer)):
                continue
            if node.users and all(user.target in LAYERS and user.args[1] is node for user in node.users):
                calls[layer] = list(node.users)
    found = {}
    for layer, users in calls.items():
        follower = _only_norm(users, names)
        norm = str(names.get(follower.args[3].name, "")).removesuffix(".running_mean") if follower is not None else None
        if norm and type(model.get_submodule(norm)) is not nn.BatchNorm2d:
            norm = None
        ends = [follower] if norm else users
        found[layer] = Found(norm or None, any(user.target in ADDITIONS for end in ends for user in end.users))
    return found


def _only_norm(users: list[Any], names: Any) -> Any:
    """The batch norm that alone takes what a layer, called once, gives, and takes nothing else."""
    if len(users) != 1 or len(users[0].users) != 1:
        return None
    (norm,) = users[0].users
    if norm.target is not ATEN.batch_norm.default or norm.args[0] is not users[0] or norm.args[3].name not in names:
        return None
    return norm if len(norm.args[3].users) == 1 else None


@torch.no_grad()
def calibrate(model: nn.Module, layers: dict[str, Found], batches: Iterable[Tensor]) -> dict[str, Grids]:
    """The grids of the layers' activations, of those that the model's own forward calls."""
    observers: dict[tuple[str, str], HistogramObserver] = {}
    handles = []

    def watch(key: tuple[str, str], x: Tensor) -> None:
        if key not in observers:
            observers[key] = HistogramObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine).to(x.device)
        observers[key](x.float())

    for name, layer in layers.items():
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(lambda _, given, name=name: watch((name, "input"), given[0])))
        if layer.added:
            handles.append(module.register_forward_hook(lambda _, __, y, name=name: watch((name, "output"), y)))
    try:
        for images in batches:
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    grids = {key: _grid(observer) for key, observer in observers.items()}
    return {
        name: Grids(grids[name, "input"], grids.get((name, "output"))) for name in layers if (name, "input") in grids
    }


def _grid(observer: HistogramObserver) -> Grid:
    scale, zero = observer.calculate_qparams()
    return Grid(float(scale), int(zero))
