"""The portable model: a folder with `model.safetensors` and `config.json`, and nothing that can run code.

A model that Deep Compression made has `model.dc` in place of the former.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orchard.errors import OrchardError, UsageError
from orchard.files import atomic, json_text
from orchard.given import MODULE, given_name
from orchard.models import create_model
from orchard.models.foreign import ForeignConfig, create_foreign, is_foreign, own_classifier
from orchard.models.narrow import narrow
from orchard.weights.deep_compression import Parts, SharedWeight, read_encoded, write_encoded
from orchard.weights.fields import building, check_fields
from orchard.weights.folders import CONFIG, ENCODED, read_description, weights_file
from orchard.weights.folders import WEIGHTS as WEIGHTS
from orchard.weights.quantized import FACT, build_quantized


@dataclass(frozen=True)
class Portable:
    """What a model folder says of itself, beside the weights."""

    model: str  # name of the variant
    architecture: dict[str, Any]  # every field of its configuration
    task: str
    classes: tuple[str, ...] = ()
    preprocess: dict[str, Any] = field(default_factory=dict)
    origin: str = ""  # the run or checkpoint it came from
    facts: dict[str, Any] = field(default_factory=dict)  # what else its task must know: fingerprints, lengths
    pruned: dict[str, list[int | None]] = field(
        default_factory=dict
    )  # layers of other sizes than configured (`narrow`)

    def build(self, **overrides: Any) -> nn.Module:
        """The network with fresh weights."""
        build = create_foreign if is_foreign(self.model) else create_model
        return self.finish(narrow(build(self.model, **{**self.architecture, **overrides}), self.pruned))

    def finish(self, model: nn.Module) -> nn.Module:
        """The network as the folder's weights need it: layers in eight bits where it says so."""
        if FACT in self.facts:
            build_quantized(model, self.facts[FACT])
        return model


@dataclass(frozen=True)
class Official:
    """A model with the weights of an official checkpoint, in memory."""

    model: nn.Module
    about: Portable
    mapping: dict[str, tuple[str, ...]]  # for each of our tensors the official names it was made of
    ignored: tuple[str, ...]  # entries of the checkpoint that are no part of the model, such as a discriminator's
    remarks: tuple[str, ...] = ()  # what a person should know


def architecture_of(model: nn.Module) -> dict[str, Any]:
    """Every field of a landmark's configuration, as JSON has it."""
    table: dict[str, Any] = dataclasses.asdict(model.config)  # type: ignore[call-overload]
    return table


def save_portable(folder: Path, model: nn.Module, about: Portable) -> None:
    """Write the folder. The weights go first: a folder without its config is not taken for a model."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    _write(folder, model, about, lambda: write_tensors(state, folder / WEIGHTS))


def save_encoded(
    folder: Path, model: nn.Module, shared: Mapping[str, SharedWeight], about: Portable
) -> dict[str, Parts]:
    """Write the folder with `model.dc`, where the tensors in `shared` stand for the model's; what they take."""
    parts: dict[str, Parts] = {}
    _write(
        folder, model, about, lambda: parts.update(write_encoded({**model.state_dict(), **shared}, folder / ENCODED))
    )
    return parts


def _write(folder: Path, model: nn.Module, about: Portable, weights: Callable[[], None]) -> None:
    table = dataclasses.asdict(about) | {"pruned": getattr(model, "pruned", {})}
    if not table["pruned"]:
        del table["pruned"]
    words = json_text(table, indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights()
        with atomic(folder / CONFIG) as file:
            file.write(words.encode())
    except OSError as error:
        raise OrchardError(f"the model cannot be written to {folder}: {error.strerror or error}") from None


def not_finite(model: nn.Module) -> list[str]:
    """The names of parameters that hold something which is not a finite number."""
    return [name for name, parameter in model.named_parameters() if not bool(parameter.isfinite().all())]


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file atomically, with the mode that the umask says. OrchardError where the disk is full."""
    try:
        with atomic(path) as file:
            save_file(dict(tensors), file.name)  # it makes a file of its own, which nobody else may read
            Path(file.name).chmod(stat.S_IMODE(os.fstat(file.fileno()).st_mode))
    except (SafetensorError, OSError) as error:
        raise OrchardError(f"{path} cannot be written: {error}; make room and run the same command again") from None


def read_portable(folder: Path) -> tuple[Portable, dict[str, Tensor]]:
    """What the folder says and its tensors by name.

    Raises OrchardError that names the file which is missing or damaged, a field of the architecture that is not of its
    form or asks for another model than the weights are of, and a tensor that is not finite.
    """
    about, state = _read(folder)
    if not is_foreign(about.model):
        with building(state, folder / CONFIG, pruned=bool(about.pruned)), torch.device("meta"):
            about.build()
    return about, state


def _read(folder: Path) -> tuple[Portable, dict[str, Tensor]]:
    about = Portable(**dict(read_description(folder)))
    check_fields(about.model, about.architecture, folder / CONFIG)
    path = weights_file(folder)
    state = read_encoded(path) if path.name == ENCODED else read_tensors(path)
    check_finite(state, str(path))
    return about, state


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raises OrchardError for weights that are not numbers: a model with them answers nothing but that."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.numel():
            plain = tensor.detach() if tensor.element_size() > 1 else tensor.detach().float()
            low, high = (float(value) for value in plain.aminmax())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise OrchardError(f"{where}: '{name}' holds values that are no finite numbers")


def fingerprint_of(model: nn.Module) -> str:
    """sha256 over the configuration and every tensor: two models with the same one compute the same."""
    digest = hashlib.sha256(json.dumps(architecture_of(model), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise OrchardError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise OrchardError(f"{path} is damaged or no safetensors file: {error}") from None


def load_portable(folder: Path, module: nn.Module | None = None) -> tuple[Portable, nn.Module]:
    """The model of a folder with its weights, in evaluation mode; of a person's own module those of `module`.

    Raises UsageError where the one is handed in and the other is asked for.
    """
    about, state = _read(folder)
    own = given_name(about.model, MODULE)
    if own and module is None:
        raise UsageError(
            f"{folder} holds the weights of {own}, a module of your own that cannot be built from its name; hand it in "
            f"from Python, as in orchard.load(RUN, model={own}())"
        )
    if module is not None and not own:
        raise UsageError(f"{folder} holds a {about.model}, which is built from its name; leave out model=")
    with building(state, folder / CONFIG, pruned=bool(about.pruned)):
        if module is None:
            model = about.build()
        else:
            model = about.finish(own_classifier(module, ForeignConfig(**about.architecture)))
    load_exactly(model, state, str(weights_file(folder)))
    return about, model.eval()


def load_exactly(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Fill every parameter and buffer; a name or shape too many or too few is an OrchardError naming `where`."""
    expected = model.state_dict()
    for name in [*expected, *state]:
        if name not in state:
            raise OrchardError(f"{where} has no tensor '{name}', which this model needs; is it of another model?")
        if name not in expected:
            raise OrchardError(f"{where} has a tensor '{name}', which this model lacks; is it of another model?")
        if expected[name].shape != state[name].shape:
            raise OrchardError(
                f"{where}: '{name}' has shape {tuple(state[name].shape)}, this model expects "
                f"{tuple(expected[name].shape)}"
            )
    model.load_state_dict(state)
