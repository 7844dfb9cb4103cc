"""Checkpoints as others store them: .npz, .safetensors, sharded .safetensors and PyTorch pickles.

No file is ever given the chance to run code: arrays are read without object support, pickles with
`weights_only=True`, which knows tensors and plain containers and nothing else.
"""

from __future__ import annotations

import json
import math
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orchard.errors import OrchardError, UsageError
from orchard.packed import most_unpacked
from orchard.weights.portable import read_tensors
from orchard.weights.torchscript import is_torchscript, read_torchscript

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model", "weights")  # keys under which training scripts keep the weights in a pickle


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file under its own name, on the CPU.

    Raises OrchardError where the file is missing, truncated, not what its ending says or asks to run code.
    """
    if not path.is_file():
        raise OrchardError(f"{path} is missing or no file")
    if path.suffix == ".npz":
        state = _read_npz(path)
    elif path.suffix == ".safetensors":
        state = read_tensors(path)
    elif path.name.endswith(".safetensors.index.json"):
        state = _read_shards(path)
    elif path.suffix in PICKLES:
        state = _read_pickle(path)
    else:
        raise UsageError(f"{path}: expected a checkpoint in .npz, .safetensors, {', '.join(PICKLES)}")
    if not state:
        raise OrchardError(f"{path} holds no tensors")
    return state


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            _look_at_sizes(arrays.zip)
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, "an .npz file", error) from None
    except (ValueError, TypeError) as error:  # an array of Python objects, or of a type torch lacks
        raise OrchardError(f"{path} holds something other than plain arrays of numbers: {_line(error)}") from None


def _look_at_sizes(archive: zipfile.ZipFile) -> None:
    """ValueError where arrays say that they are larger than what is there, or unpack out of all proportion."""
    for member in archive.infolist():
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(file)
        if math.prod(shape) * kind.itemsize > member.file_size:
            raise ValueError(f"{member.filename} says that it has the shape {shape}, but is too small for that")
        if member.file_size > most_unpacked(member.compress_size):
            raise ValueError(f"{member.filename} unpacks to {member.file_size:,} bytes")


def _read_shards(index: Path) -> dict[str, Tensor]:
    """A checkpoint cut into several files, as the Hugging Face Hub keeps large ones."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(index, "an index of shards", error) from None
    state: dict[str, Tensor] = {}
    for name in names:
        state |= read_tensors(index.parent / name)
    absent = [name for name in places if name not in state]
    if absent:
        raise OrchardError(f"{index} lists a tensor '{absent[0]}', which {places[absent[0]]} lacks")
    return state


def _read_pickle(path: Path) -> dict[str, Tensor]:
    if is_torchscript(path):
        return read_torchscript(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of other pickle protocols; they load or they do not
            value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way there is; what it says is passed on
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        if forbidden:
            raise OrchardError(
                f"{path} asks to run code while it loads ({forbidden[1]}), which Orchard never allows; "
                "have its owner save the plain state dict, best as .safetensors"
            ) from None
        raise _damaged(path, "a PyTorch checkpoint", error) from None
    for key in WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict):
        raise OrchardError(f"{path} holds a {type(value).__name__}, expected a state dict: names and their tensors")
    others = [name for name, tensor in value.items() if not isinstance(tensor, Tensor)]
    if others:
        kind = type(value[others[0]]).__name__
        raise OrchardError(f"{path} is no state dict: '{others[0]}' is a {kind}, expected a tensor")
    return {str(name): tensor for name, tensor in value.items()}


def _damaged(path: Path, kind: str, error: Exception) -> OrchardError:
    return OrchardError(f"{path} is damaged or not {kind}: {_line(error)}")


def _line(error: Exception) -> str:
    """The first line of what an error says, at a length that fits on one."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
