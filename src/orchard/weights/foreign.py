"""Checkpoints as others store them: .npz, .safetensors, sharded .safetensors and PyTorch pickles.

No file is ever given the chance to run code, nor to take memory for more than stands in it.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from orchard.errors import OrchardError, UsageError, first_line
from orchard.files import read_as
from orchard.weights.pickles import PICKLES, read_pickle
from orchard.weights.portable import read_tensors
from orchard.weights.zips import check_zip, damaged


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
    elif path.name.endswith(PICKLES):
        state = read_pickle(path)
    else:
        raise UsageError(f"{path}: expected a checkpoint in .npz, .safetensors, {', '.join(PICKLES)}")
    if not state:
        raise OrchardError(f"{path} holds no tensors")
    return state


def _read_npz(path: Path) -> dict[str, Tensor]:
    check_zip(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                _check_array(path, arrays.zip, name)
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except OrchardError:
        raise
    except (ValueError, TypeError) as error:  # an array of Python objects, or of a type torch lacks
        raise OrchardError(f"{path} holds something other than plain arrays of numbers: {first_line(error)}") from None
    except Exception as error:  # zip and its packings fail in many ways
        raise damaged(path, "an .npz file", error) from None


def _check_array(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Memory is taken as a header says: one that says more than stands behind it is refused."""
    entry = name if name in archive.NameToInfo else f"{name}.npy"
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)  # type: ignore[no-untyped-call]
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize > archive.getinfo(entry).file_size:
        raise OrchardError(f"{path}: '{name}' claims the shape {shape}, for which the file is too short"[:300])


def _read_shards(index: Path) -> dict[str, Tensor]:
    """A checkpoint cut into several files, as the Hugging Face Hub keeps large ones."""
    places = read_as(index, Index).weight_map
    names = sorted(set(places.values()))
    odd = [name for name in names if Path(name).name != name or not name]
    if odd:
        raise OrchardError(f"{index} names '{odd[0][:80]}', expected names of files beside it")
    state: dict[str, Tensor] = {}
    for name in names:
        state |= read_tensors(index.parent / name)
    absent = [name for name in places if name not in state]
    if absent:
        raise OrchardError(f"{index} lists a tensor '{absent[0]}', which {places[absent[0]]} lacks")
    return state


class Index(BaseModel):
    weight_map: dict[str, str]
