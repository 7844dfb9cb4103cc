"""The weights of a TorchScript archive, read without its program.

An archive holds code beside its tensors, and opening it with PyTorch would load that code. Here only the pickled object
tree is read, by an unpickler that knows tensors, plain containers and modules as bare bags of attributes.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from orchard.errors import OrchardError

DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
BROKEN = (
    OSError, zipfile.BadZipFile, pickle.UnpicklingError, EOFError, StopIteration, LookupError, ValueError, TypeError,
    AttributeError, RuntimeError,
)  # fmt: skip
MARK = "/constants.pkl"  # what no other PyTorch file has


class _Bag:
    """A module of the program: those of its attributes that are weights or other modules."""

    weights: ClassVar[frozenset[str]] = frozenset()  # names of its parameters and buffers

    def __setstate__(self, state: Any) -> None:
        attributes = state if isinstance(state, dict) else {}
        self.parts = {k: v for k, v in attributes.items() if k in self.weights or isinstance(v, _Bag)}


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """Stands for PyTorch's rebuilding function: a copy, so that the bytes of the file can go."""
    return storage.as_strided(size, stride, offset).clone()


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive = archive
        self.root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (_Bag,), {"weights": self._weights_of(module, name)})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module == "torch.jit._pickle" and name in ("build_intlist", "build_doublelist", "build_boollist"):
            return list
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def _weights_of(self, module: str, name: str) -> frozenset[str]:
        """What the program's text, which is only looked at, declares as parameters and buffers of a class."""
        text = self.archive.read(f"{self.root}/code/{module.replace('.', '/')}.py").decode()
        declared = re.search(rf"class {re.escape(name)}\(Module\):(.*?)(?=^class |\Z)", text, re.DOTALL | re.MULTILINE)
        lists = re.findall(r"__(?:parameters|buffers)__ = \[(.*?)\]", declared[1] if declared else "", re.DOTALL)
        return frozenset(re.findall(r'"([^"]+)"', " ".join(lists)))

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        raw = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        return torch.frombuffer(raw, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def is_torchscript(path: Path) -> bool:
    """Is this file a TorchScript archive?"""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(MARK) for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of the archive's modules, by their dotted names, on the CPU.

    Raises OrchardError for a damaged archive and for one that asks for more than tensors and containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith(MARK)).removesuffix(MARK)
            tree = _Reader(archive, root).load()
    except (
        OSError,
        zipfile.BadZipFile,
        StopIteration,
        KeyError,
        ValueError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        raise OrchardError(f"{path} is damaged or no TorchScript archive of weights: {error}") from None
    return dict(_named_tensors(tree, ""))


def _named_tensors(found: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(found, Tensor):
        yield name, found
    elif isinstance(found, _Bag):
        for key, value in found.parts.items():
            yield from _named_tensors(value, f"{name}.{key}" if name else key)
