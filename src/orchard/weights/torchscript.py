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

from orchard.weights.zips import check_zip, damaged

DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
MARK = "/constants.pkl"  # what no other PyTorch file has
DEEPEST = 100  # modules inside one another
MOST = 200_000  # modules and tensors by their names; a module that stands in two places has two


class _Bag:
    """A module of the program: those of its attributes that are weights or other modules."""

    weights: ClassVar[frozenset[str]] = frozenset()  # names of its parameters and buffers

    def __setstate__(self, state: Any) -> None:
        attributes = state if isinstance(state, dict) else {}
        self.parts = {k: v for k, v in attributes.items() if k in self.weights or isinstance(v, _Bag)}


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """Stands for PyTorch's rebuilding function."""
    return storage.as_strided(size, stride, offset)


class _Reader(pickle._Unpickler):  # type: ignore[misc,name-defined]  # Python's: C's takes memory that a file names
    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive = archive
        self.root = root
        self.storages: dict[str, Tensor] = {}
        self.declared: dict[str, dict[str, frozenset[str]]] = {}  # of each file of the program

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
        if module not in self.declared:
            text = self.archive.read(f"{self.root}/code/{module.replace('.', '/')}.py").decode()
            self.declared[module] = _declared_weights(text)
        return self.declared[module].get(name, frozenset())

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        if key not in self.storages:
            raw = bytearray(self.archive.read(f"{self.root}/data/{key}")) if count else b""
            self.storages[key] = torch.frombuffer(raw, dtype=dtype, count=count) if raw else torch.empty(0, dtype=dtype)
        return self.storages[key]


def _declared_weights(text: str) -> dict[str, frozenset[str]]:
    """What a program's text, which is only looked at, declares as parameters and buffers of each class."""
    found: dict[str, frozenset[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("class "):
            name = line.removeprefix("class ").partition("(")[0]
        elif line.lstrip().startswith(("__parameters__ = [", "__buffers__ = [")):
            found[name] = found.get(name, frozenset()) | frozenset(re.findall(r'"([^"]+)"', line))
    return found


def is_torchscript(path: Path) -> bool:
    """Is this file a TorchScript archive?"""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(MARK) for name in archive.namelist())
    except Exception:  # zipfile says in many ways that it cannot read one
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of the archive's modules, by their dotted names, on the CPU.

    Raises OrchardError for a damaged archive, for one that asks for more than tensors and containers, and for one in
    which modules hold one another without end.
    """
    check_zip(path)
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith(MARK)).removesuffix(MARK)
            tree = _Reader(archive, root).load()
        return dict(_named_tensors(tree))
    except Exception as error:  # a damaged pickle can fail in any way there is; what it says is passed on
        raise damaged(path, "a TorchScript archive of weights", error) from None


def _named_tensors(tree: Any) -> Iterator[tuple[str, Tensor]]:
    seen = 0
    waiting = [("", tree, 0)]
    while waiting:
        name, found, depth = waiting.pop()
        seen += 1
        if seen > MOST or depth > DEEPEST:
            raise ValueError("its modules hold one another without end")
        if isinstance(found, Tensor):
            yield name, found
        elif isinstance(found, _Bag):
            below = [(f"{name}.{key}" if name else str(key), value, depth + 1) for key, value in found.parts.items()]
            waiting += reversed(below)
