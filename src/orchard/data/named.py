"""The sets that everybody knows by name: digits, MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import math
import socket
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchard.data.contracts import DataSettings, ImageData
from orchard.data.splits import ArraySplit, array_fingerprint, hold_out, hold_out_validation
from orchard.errors import OrchardError, UsageError
from orchard.files import open_regular

_LARGEST_IDX = 2**28  # bytes that an IDX file may hold; those of MNIST come to 47 MB
Splits = dict[str, ArraySplit]
Classes = tuple[str, ...]


def open_named(name: str, folder: Path | None, settings: DataSettings, source: str) -> ImageData:
    """One of `NAMED`; `folder` holds its files (digits needs none).

    Raises UsageError without a folder, OrchardError with the list of files if one is missing and cannot be fetched.
    """
    splits, classes = NAMED[name](name, folder, settings)
    channels = splits["train"].pictures.shape[1]
    mark = array_fingerprint(splits, classes)
    reason = f"'{name}' is the name of a set that Orchard knows"
    return ImageData(name, source, "named set", reason, classes, channels, splits, mark)


def _digits(name: str, folder: Path | None, settings: DataSettings) -> tuple[Splits, Classes]:
    """1,797 scans of handwritten digits, 8x8 with 17 levels of grey (E. Alpaydin and C. Kaynak, UCI, 1998).

    They have no official split here, so ours is fixed, whatever the settings: 360 for the test, 180 for validation,
    1,257 to learn from, each with the classes in proportion. Folds are of all but the test.
    """
    package = importlib.util.find_spec("sklearn")  # it has the file; importing it takes seconds
    assert package is not None and package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    pictures = np.round(table[:, :64].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = table[:, 64].astype(np.int64)
    rest, test = hold_out(labels, 360 / 1797, seed=0)
    if settings.held_fold is None:
        train, validation = hold_out(labels[rest], 180 / 1437, seed=1)
    else:
        train, validation = hold_out_validation(labels[rest], settings, name)
    places = {"train": rest[train], "validation": rest[validation], "test": test}
    splits = {split: ArraySplit(f"{name}/{split}", pictures[p], labels[p], p) for split, p in places.items()}
    return splits, tuple(str(digit) for digit in range(10))


def _with_validation(
    name: str, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], settings: DataSettings
) -> Splits:
    """The official training pictures, some held out for validation, and the official test."""
    pictures, labels = train
    keep, held = hold_out_validation(labels, settings, name)
    return {
        "train": ArraySplit(f"{name}/train", pictures[keep], labels[keep], keep),
        "validation": ArraySplit(f"{name}/train", pictures[held], labels[held], held),
        "test": ArraySplit(f"{name}/test", test[0], test[1], np.arange(len(test[1]))),
    }


@dataclass(frozen=True)
class _Published:
    """A set of torchvision's: its class there, the folder it makes, and the bytes of each file to download."""

    name: str
    folder: str
    sizes: Mapping[str, int]

    @property
    def kind(self) -> Any:
        from torchvision import datasets  # as slow to import as torch, and needed for few sets

        return getattr(datasets, self.name)


_MNIST_FILES = tuple(f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
_MNIST_SIZES = dict(zip(_MNIST_FILES, (9912422, 28881, 1648877, 4542), strict=True))
_FASHION_SIZES = dict(zip(_MNIST_FILES, (26421880, 29515, 4422102, 5148), strict=True))
_PUBLISHED = {
    "mnist": _Published("MNIST", "MNIST/raw", _MNIST_SIZES),
    "fashion-mnist": _Published("FashionMNIST", "FashionMNIST/raw", _FASHION_SIZES),
    "cifar10": _Published("CIFAR10", "cifar-10-batches-py", {"cifar-10-python.tar.gz": 170498071}),
    "cifar100": _Published("CIFAR100", "cifar-100-python", {"cifar-100-python.tar.gz": 169001437}),
}


def _idx_set(name: str, folder: Path | None, settings: DataSettings) -> tuple[Splits, Classes]:
    """MNIST (Y. LeCun and others, 1998) and Fashion-MNIST (arXiv:1708.07747): 60,000 + 10,000 of 28x28, grey."""
    published, root = _PUBLISHED[name], _need(name, folder)

    def find() -> dict[str, Path]:
        paths = {}
        for file in _MNIST_FILES:
            places = [base / spelled for base in (root, root / published.folder) for spelled in (file, file[:-3])]
            there = [place for place in places if place.is_file()]
            if not there:
                return {}
            paths[file] = there[0]
        return paths

    paths = find()
    if not paths:
        _download(name, root)
        paths = find()
    arrays = [_read_idx(paths[file], 3 if "images" in file else 1) for file in _MNIST_FILES]
    for pictures, labels, file in ((arrays[0], arrays[1], _MNIST_FILES[0]), (arrays[2], arrays[3], _MNIST_FILES[2])):
        if len(pictures) != len(labels) or labels.max() > 9:
            raise OrchardError(f"{paths[file]} has {len(pictures)} pictures but {len(labels)} labels; fetch it again")
    names = [name.partition(" - ")[0] for name in published.kind.classes]
    train, test = (arrays[0][:, None], arrays[1]), (arrays[2][:, None], arrays[3])
    return _with_validation(name, train, test, settings), tuple(names)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX file of bytes, packed by gzip or not: magic 0, 0, 8, dimensions; each length as 4 bytes, big end first."""
    header, data = 4 + 4 * dimensions, b""
    try:
        with open_regular(path) as packed, gzip.open(packed) if path.suffix == ".gz" else packed as file:
            head = file.read(header)
            lengths = [int.from_bytes(head[at : at + 4], "big") for at in range(4, len(head), 4)]
            size = math.prod(lengths)
            good = len(head) == header and head[:4] == bytes((0, 0, 8, dimensions)) and 0 < size <= _LARGEST_IDX
            data = file.read(size + 1) if good else b""  # and no more, whatever it unpacks to
    except (OSError, EOFError, zlib.error) as error:
        raise OrchardError(f"{path} is damaged ({error}); fetch it again") from None
    if not good or len(data) != size:
        raise OrchardError(f"{path} is damaged: not an IDX file of bytes with {dimensions} dimensions; fetch it again")
    return np.frombuffer(data, np.uint8).reshape(lengths)


def _cifar(name: str, folder: Path | None, settings: DataSettings) -> tuple[Splits, Classes]:
    """CIFAR-10 and CIFAR-100 (A. Krizhevsky, 2009): 32x32 RGB, 50,000 + 10,000. CIFAR-100 with its fine labels.

    The files are pickles; torchvision opens them only if their checksums are the published ones.
    """
    published, root = _PUBLISHED[name], _need(name, folder)
    if root.name == published.folder:
        root = root.parent

    def load() -> list[Any]:
        return [published.kind(root, train=train) for train in (True, False)]

    try:
        both = load()
    except RuntimeError:  # a file is missing or has another checksum
        _download(name, root)
        both = load()
    train, test = ((np.asarray(part.data).transpose(0, 3, 1, 2), np.asarray(part.targets)) for part in both)
    return _with_validation(name, train, test, settings), tuple(both[0].classes)


def _need(name: str, folder: Path | None) -> Path:
    if folder is None:
        raise UsageError(f"{name} needs a folder with its files: --data {name}:FOLDER, or --set data.root=FOLDER")
    return folder


def _download(name: str, root: Path) -> None:
    """Let torchvision fetch what is missing. Raises OrchardError with the list of files if it cannot."""
    published = _PUBLISHED[name]
    kind = published.kind
    sums = {kind.filename: kind.tgz_md5} if hasattr(kind, "tgz_md5") else dict(kind.resources)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            kind(root, download=True)
    except (OSError, RuntimeError):
        listed = ", ".join(f"{file} ({size} bytes, md5 {sums[file]})" for file, size in published.sizes.items())
        raise OrchardError(
            f"files of {name} are missing in {root} (or damaged), and they could not be downloaded; put these there:\n"
            f"{listed}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


Reader = Callable[[str, Path | None, DataSettings], tuple[Splits, Classes]]
NAMED: Mapping[str, Reader] = {
    "digits": _digits,
    "mnist": _idx_set,
    "fashion-mnist": _idx_set,
    "cifar10": _cifar,
    "cifar100": _cifar,
}
