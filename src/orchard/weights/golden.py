"""Golden cases: folders of tensors that official code computed, for code that no test can run.

`meta.json` says what was computed and by which commit, `io.safetensors` holds inputs (`in.*`) and outputs (`out.*`).
The weights are in `params.safetensors`, or, of large networks, follow from their names and shapes by a rule.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.weights.portable import read_tensors

GOLDEN = Path(__file__).parents[3] / "tests" / "golden"


@dataclass(frozen=True)
class Stored:
    """A golden case as it was read."""

    meta: Mapping[str, Any]
    tensors: Mapping[str, Tensor]  # `in.*` and `out.*`
    state: Mapping[str, Tensor]  # weights and buffers under their official names

    def given(self, name: str) -> Tensor:
        """The input of this name, else the output: what official code drew or computed may be an input of ours."""
        return self._first(f"in.{name}", f"out.{name}")

    def computed(self, name: str) -> Tensor:
        return self._first(f"out.{name}")

    def _first(self, *keys: str) -> Tensor:
        for key in keys:
            if key in self.tensors:
                return self.tensors[key]
        raise OrchardError(f"the golden case has no tensor {' or '.join(keys)}")

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Outputs whose names begin with `prefix` and a dot, by the rest of their names."""
        start = f"out.{prefix}."
        return {key.removeprefix(start): tensor for key, tensor in self.tensors.items() if key.startswith(start)}


def read_meta(folder: Path) -> dict[str, Any]:
    """What a case says of itself; raises OrchardError where there is no such case."""
    if not (folder / "meta.json").is_file():
        raise OrchardError(f"the golden case {folder} is missing; name the folder that holds it with --golden")
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return meta


def read_golden(folder: Path) -> Stored:
    """The whole case; raises OrchardError where it, or one of its files, is missing."""
    meta = read_meta(folder)
    tensors = read_tensors(folder / "io.safetensors")
    settings = meta.get("constructor", {})
    if "input_seed" in settings and "input_shape" in settings:  # large inputs follow from a seed as well
        images = np.random.RandomState(settings["input_seed"]).standard_normal(settings["input_shape"])
        tensors["in.images"] = torch.from_numpy(images.astype(np.float32))
    if "params_recipe" in meta:
        return Stored(meta, tensors, _state_by_rule(meta, _shapes(folder, meta)))
    params = folder / "params.safetensors"
    return Stored(meta, tensors, read_tensors(params) if params.is_file() else {})


def _shapes(folder: Path, meta: Mapping[str, Any]) -> dict[str, list[int]]:
    """The shape of every tensor of the official state dict, wherever this case keeps them."""
    if "parameters" in meta:
        return {name: shape for name, (shape, _) in meta["parameters"].items()}
    if (folder / "names.json").is_file():
        shapes: dict[str, list[int]] = json.loads((folder / "names.json").read_text(encoding="utf-8"))
        return shapes
    return dict(meta["param_shapes"])


def _state_by_rule(meta: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Weights that follow from names, shapes and the case's seed by the rule that its meta states (`params_recipe`)."""
    constructor = meta.get("constructor")
    if constructor is not None:
        gain, factors = constructor.get("gain", 2.0), constructor.get("multipliers", {})
    else:
        gain, factors = meta.get("recipe_gain", meta.get("args", {}).get("_gain", 1.0)), {}
    state = {}
    for name, shape in shapes.items():
        seed = (zlib.crc32(name.encode()) + meta["seed"]) % 2**32
        z = np.asarray(np.random.RandomState(seed).standard_normal(shape))
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        if name.endswith("running_var"):
            z = 1 + 0.2 * np.tanh(z)
        elif name.endswith("running_mean"):
            z = 0.1 * z
        elif len(shape) >= 2 and not (constructor is not None and name.endswith("query_embed.weight")):
            z = z * np.sqrt(gain / np.prod(shape[1:]))
        elif len(shape) < 2:
            z = 1 + 0.2 * np.tanh(z) if name.endswith(".weight") else 0.1 * z
        for ending, factor in factors.items():
            z = z * factor if name.endswith(ending) else z
        state[name] = torch.from_numpy(z.astype(np.float32))
    return state
