"""Which layers have their channels in common, read off the graph of one forward pass.

A convolution or a linear layer makes new channels and reads those of what it is given. Norms, activations, pools and
depthwise convolutions keep them, a sum makes the channels of both sides one, and flattening a map repeats each of them.
What is not known here keeps all channels that it touches: a network is pruned where that is certain, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from orchard.errors import UsageError, first_line
from orchard.models.narrow import sizes_of


@dataclass
class Group:
    """Channels that live or go together: `size` of them, made and read by parameters along an axis.

    In a reader that sees flattened maps each channel stands for `repeat` places in a row.
    """

    size: int
    fixed: bool = False
    makers: list[str] = field(default_factory=list)  # layers, whose axis 0 it is
    norms: list[str] = field(default_factory=list)
    depthwise: list[str] = field(default_factory=list)
    readers: list[tuple[str, int]] = field(default_factory=list)  # layers, whose axis 1 it is, and the repeat


@dataclass(frozen=True)
class Channels:
    """What axis 1 of a value is."""

    group: Group
    repeat: int = 1


# Operations that leave every channel in its place; their first argument is the value.
KEEPING = {
    "relu", "relu_", "hardtanh", "hardtanh_", "tanh", "tanh_", "sigmoid", "sigmoid_", "silu", "silu_", "hardswish",
    "hardswish_", "hardsigmoid", "gelu", "elu", "elu_", "leaky_relu", "leaky_relu_", "relu6", "softplus", "mish",
    "dropout", "dropout_", "feature_dropout", "clone", "contiguous", "to", "detach", "neg", "max_pool2d", "avg_pool2d",
    "adaptive_avg_pool2d", "adaptive_max_pool2d",
}  # fmt: skip
JOINING = {"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_"}  # two values, or a value and a number
LAYERS: dict[str, type[nn.Module]] = {"conv2d": nn.Conv2d, "linear": nn.Linear}
AXES = {nn.Conv2d: 4, nn.Linear: 2}  # of what they are given


def find_groups(model: nn.Module, sample: Tensor) -> list[Group]:
    """All groups of channels that can be pruned, in the order of the forward pass on `sample` (B, C, H, W).

    UsageError for a model whose graph cannot be read, or that has none.
    """
    try:
        graph = torch.export.export(model.eval(), (sample,), strict=False)
    except Exception as error:  # of many types
        raise UsageError(
            f"{type(model).__name__} cannot be pruned: its graph cannot be read: {first_line(error)}"
        ) from None
    signature = graph.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = list(graph.graph.nodes)
    asleep = [names[n.name] for n in nodes if n.name in signature.inputs_to_parameters and not n.users]
    if asleep:
        raise UsageError(f"{type(model).__name__} cannot be pruned: its prediction makes no use of '{asleep[0]}'")
    found = _Walk(model, names).walk(nodes)
    if not found:
        raise UsageError(
            f"{type(model).__name__} cannot be pruned: every channel of it is read by something that needs them all"
        )
    return found


class _Walk:
    """The pass over the graph's nodes."""

    def __init__(self, model: nn.Module, names: dict[str, str]):
        self.model, self.names = model, names
        self.values: dict[Node, Channels] = {}
        self.merged: dict[int, Group] = {}  # of a group that became part of another
        self.groups: list[Group] = []
        self.used: dict[str, tuple[Group, ...]] = {}  # what a layer reads and makes

    def walk(self, nodes: list[Node]) -> list[Group]:
        for node in nodes:
            if node.op == "placeholder" and node.name not in self.names:
                self.values[node] = self._new(_shape(node)[1], fixed=True)
            elif node.op == "output":
                self._freeze(node)
            elif node.op == "call_function":
                found = self._call(node)
                if found is None:
                    self._freeze(node)
                    shape = _shape(node)
                    found = self._new(shape[1] if len(shape) > 1 else 1, fixed=True)
                self.values[node] = found
        return [g for g in self.groups if id(g) not in self.merged and not g.fixed and g.makers and g.readers]

    def _call(self, node: Node) -> Channels | None:
        """The channels of a result; None for what is not known."""
        name, first = _operation(node), next(iter(node.args), None)
        given = self._of(first)
        if given is None:
            return None
        if name in KEEPING:
            return given
        if name in LAYERS:
            return self._layer(node, given)
        if name == "batch_norm":
            return self._norm(node, given)
        if name in JOINING:
            return self._join(node, given)
        if name == "mean":
            axes: Any = node.args[1]
            return given if len(_shape(first)) == 4 and {axis % 4 for axis in axes} == {2, 3} else None
        if name in ("flatten", "view", "reshape"):
            return self._reshape(_shape(first), _shape(node), given)
        return None

    def _layer(self, node: Node, given: Channels) -> Channels | None:
        kind = LAYERS[_operation(node)]
        name = self._module(node.args[1])
        layer: Any = self.model.get_submodule(name) if name is not None else None
        if name is None or not isinstance(layer, kind) or len(_shape(node.args[0])) != AXES[kind]:
            return None
        if name in self.used:  # twice in one pass: what goes in and comes out must stay
            for group in self.used[name]:
                self._fix(group)
            return None
        groups = getattr(layer, "groups", 1)
        if groups == 1:
            given.group.readers.append((name, given.repeat))
            made = self._new(sizes_of(layer)[0])
            made.group.makers.append(name)
            self.used[name] = (given.group, made.group)
            return made
        self.used[name] = (given.group,)
        if groups == layer.in_channels == layer.out_channels and given.repeat == 1:
            given.group.depthwise.append(name)
            return given
        return None

    def _norm(self, node: Node, given: Channels) -> Channels | None:
        parameter = next((one for one in node.args[1:5] if isinstance(one, Node)), None)
        name = self._module(parameter)
        if name is None or not isinstance(self.model.get_submodule(name), nn.BatchNorm2d) or given.repeat != 1:
            return None
        if name in self.used:
            self._fix(self.used[name][0])
            return None
        self.used[name] = (given.group,)
        given.group.norms.append(name)
        return given

    def _join(self, node: Node, given: Channels) -> Channels | None:
        other: Any = node.args[1]
        if not isinstance(other, Node):
            return given
        also = self._of(other)
        ours, theirs = _shape(node.args[0]), _shape(other)
        if also is None or len(ours) != len(theirs) or ours[1] != theirs[1] or given.repeat != also.repeat:
            return None
        return Channels(self._merge(given.group, also.group), given.repeat)

    @staticmethod
    def _reshape(before: tuple[int, ...], after: tuple[int, ...], given: Channels) -> Channels | None:
        if len(after) < 2 or before[0] != after[0]:
            return None
        if after[1] == before[1]:
            return given
        if len(after) == 2 and len(before) == 4:
            return Channels(given.group, given.repeat * before[2] * before[3])
        return None

    def _module(self, parameter: Any) -> str | None:
        """The module whose parameter a node's argument is; None where it is computed."""
        full = self.names.get(parameter.name) if isinstance(parameter, Node) else None
        return full.rpartition(".")[0] if full is not None else None

    def _new(self, size: int, fixed: bool = False) -> Channels:
        self.groups.append(Group(size, fixed))
        return Channels(self.groups[-1])

    def _of(self, value: Any) -> Channels | None:
        found = self.values.get(value) if isinstance(value, Node) else None
        return Channels(self._root(found.group), found.repeat) if found is not None else None

    def _root(self, group: Group) -> Group:
        while id(group) in self.merged:
            group = self.merged[id(group)]
        return group

    def _merge(self, a: Group, b: Group) -> Group:
        a, b = self._root(a), self._root(b)
        if a is not b:
            for name in ("makers", "norms", "depthwise", "readers"):
                getattr(a, name).extend(getattr(b, name))
            a.fixed = a.fixed or b.fixed
            self.merged[id(b)] = a
        return a

    def _fix(self, group: Group) -> None:
        self._root(group).fixed = True

    def _freeze(self, node: Node) -> None:
        """All that goes into a node keeps its channels; a layer whose weight goes into it, too."""
        for one in node.all_input_nodes:
            if one in self.values:
                self._fix(self.values[one].group)


def _operation(node: Node) -> str:
    """`conv2d` of `aten.conv2d.default`; empty for what is no operation of torch's."""
    words = str(node.target).split(".")
    return words[1] if words[0] == "aten" and len(words) > 1 else ""


def _shape(node: Any) -> tuple[int, ...]:
    """Of the value that a node makes; empty where it makes no tensor."""
    return tuple(int(side) for side in getattr(node.meta.get("val"), "shape", ()))
