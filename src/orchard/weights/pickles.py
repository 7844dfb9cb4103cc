"""PyTorch's pickles, from which tensors are read and no code is run.

They are loaded with `weights_only=True`, which knows tensors and plain containers. Whatever else a training script kept
beside the weights (its arguments, scalars of NumPy, objects of its own classes) becomes an inert object, which takes
anything and does nothing.
"""

from __future__ import annotations

import builtins
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.weights.torchscript import is_torchscript, read_torchscript
from orchard.weights.zips import check_zip, damaged

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
# Keys under which training scripts keep the weights in a pickle. An average over the steps is taken where it is alone.
WRAPPERS = (
    "state_dict", "model_state_dict", "model", "weights", "net", "network", "module", "params",
    "ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema",
)  # fmt: skip
# Keys under which they keep the networks of an adversarial pair, the generator's average first. A file of the generator
# alone has its names as they are; of both, and of networks by other names, each has the network's name before it.
GENERATORS, DISCRIMINATOR = ("g_ema", "g"), "d"
INERT = 64  # unknown classes that one file may have
LARGEST_EXPANDED = 2**20  # elements of a tensor that shows the same numbers in several places


class _Inert:
    """Stands for what a pickle names and nothing here knows: it takes anything and does nothing."""

    def __new__(cls, *_: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _InertDict(_Inert):
    """Of a class that is filled like a dict."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _InertList(_Inert):
    """Of a class that is filled like a list."""

    def __new__(cls, *_: Any) -> Any:
        return []


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of torch.save or torch.jit.save, on the CPU; OrchardError for any other content."""
    if is_torchscript(path):
        return read_torchscript(path)
    if zipfile.is_zipfile(path):
        check_zip(path)
    value = _load_inert(path)
    if isinstance(value, dict):
        value = _unwrap(value)
    if isinstance(value, _Inert):
        raise OrchardError(
            f"{path} holds a whole {type(value).__module__}.{type(value).__name__}, which only its own code can open; "
            "have its owner save its state_dict(), best as .safetensors"
        )
    if not isinstance(value, dict):
        raise OrchardError(f"{path} holds a {type(value).__name__}, expected a state dict: names and their tensors")
    for name, tensor in value.items():
        if not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise OrchardError(f"{path} is no state dict: '{str(name)[:80]}' is a {kind}, expected a tensor")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise OrchardError(f"{path}: '{str(name)[:80]}' is sparse, quantised or empty; expected a plain tensor")
        there = tensor.untyped_storage().nbytes() // tensor.element_size()
        if tensor.numel() > max(there, LARGEST_EXPANDED):
            raise OrchardError(f"{path}: '{str(name)[:80]}' claims {tensor.numel():,} numbers and has {there:,}")
    return {str(name): tensor for name, tensor in value.items()}


def _load_inert(path: Path) -> Any:
    """What torch.load finds with `weights_only=True`, with inert objects for the classes that it does not know."""
    inert: dict[str, type] = dict.fromkeys(_unknown_classes(path), _Inert)
    while True:
        classes: list[Any] = [(_class(name, kind), name) for name, kind in inert.items()]
        try:
            # warnings are of other pickle protocols, which load or do not
            with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(classes):  # type: ignore[no-untyped-call]
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle can fail in any way there is; what it says is passed on
            known = len(inert), *inert.values()
            _learn(inert, str(error))
            if known == (len(inert), *inert.values()):
                raise _refused(path, error) from None


def _class(name: str, kind: type) -> type:
    module, _, own = name.rpartition(".")
    return type(own, (kind,), {"__module__": module})


def _learn(inert: dict[str, type], said: str) -> None:
    """Add the class that an error of torch's names, or note how it is filled."""
    if found := re.search(r"Unsupported global: GLOBAL ([\w.]+) was not", said):
        name = found[1] if "." in found[1] else f"builtins.{found[1]}"
        if _is_harmless(name) and len(inert) < INERT:
            inert.setdefault(name, _Inert)
    elif found := re.search(r"Can only SETITEMS? for .*, but got <class '([\w.]+)'>", said):
        inert.update({found[1]: _InertDict} if found[1] in inert else {})
    elif found := re.search(r"Can only (?:append to|extend) lists, but got <class '([\w.]+)'>", said):
        inert.update({found[1]: _InertList} if found[1] in inert else {})


def _is_harmless(name: str) -> bool:
    """No function of Python's own, such as eval: a file that names one is refused, though nothing would run."""
    module, _, own = name.rpartition(".")
    return bool(module) and (module != "builtins" or isinstance(getattr(builtins, own, None), type))


def _unknown_classes(path: Path) -> list[str]:
    """The classes that a pickle in a zip archive names and torch does not know, before its tensors are read.

    Older files are no archives: there they are found one by one, each by a try to load.
    """
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # loading says what is wrong
        return []
    return [name for name in found if re.fullmatch(r"[\w.]+", name) and _is_harmless(name)][:INERT]


def _refused(path: Path, error: Exception) -> OrchardError:
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden:  # of modules that do harm, and Python's own functions
        return OrchardError(
            f"{path} asks to run code while it loads ({forbidden[1]}), which Orchard never allows; "
            "have its owner save the plain state dict, best as .safetensors"
        )
    cause = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))  # behind much advice
    return damaged(path, "a PyTorch checkpoint", ValueError(cause[1]) if cause else error)


def _unwrap(value: dict[Any, Any], depth: int = 3) -> dict[Any, Any]:
    """The weights inside what a training script saved; the value itself where they are nowhere inside."""
    for key in WRAPPERS if depth else ():
        inner = value.get(key)
        if isinstance(inner, dict):
            found = _unwrap(inner, depth - 1)
            if any(isinstance(tensor, Tensor) for tensor in found.values()):
                return found
    generator = next((value[key] for key in GENERATORS if isinstance(value.get(key), dict)), None)
    if generator is None:
        networks = {name: one for name, one in value.items() if isinstance(name, str) and _is_state(one)}
        several = len(networks) > 1 and not any(isinstance(tensor, Tensor) for tensor in value.values())
        return _joined({f"{name}.": one for name, one in networks.items()}) if several else value
    discriminator = value.get(DISCRIMINATOR)
    if not isinstance(discriminator, dict):
        return generator
    return _joined({"generator.": generator, "discriminator.": discriminator})


def _is_state(value: Any) -> bool:
    """Is it the state dict of a network, one of several that a file names?"""
    return isinstance(value, dict) and bool(value) and all(isinstance(tensor, Tensor) for tensor in value.values())


def _joined(networks: dict[str, dict[Any, Any]]) -> dict[Any, Any]:
    return {f"{start}{name}": tensor for start, network in networks.items() for name, tensor in network.items()}
