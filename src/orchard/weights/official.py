"""Official checkpoints in and out: tensors under foreign names become ours, and ours theirs.

The name table of a landmark says which is which. Nothing is loaded on a guess: whatever is left over on
either side, by name or by shape, is an error that names it.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.cards import card_of
from orchard.errors import OrchardError, UsageError, unknown
from orchard.files import atomic_folder, disk_error
from orchard.models import Landmark, configuration, create_model, landmark_of, picture_size
from orchard.models.foreign import is_foreign
from orchard.weights.beside import CONFIG as BESIDE
from orchard.weights.beside import NOTHING, Beside, read_beside
from orchard.weights.by_name import find_weights
from orchard.weights.fields import building, check_fields
from orchard.weights.foreign import read_checkpoint
from orchard.weights.names import Table, find_ours, foreign_names, to_ours, to_theirs, without_prefixes
from orchard.weights.portable import Official, Portable, architecture_of, check_finite, load_exactly, save_portable
from orchard.weights.timm_models import read_timm

IMAGENET = {
    "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop": 0.875, "resize": "shorter-side",
    "interpolation": "bilinear",
}  # fmt: skip


def landmark_for(model: nn.Module) -> Landmark:
    """The landmark that a model object is of: that of the module where its class is written."""
    landmark = getattr(sys.modules[type(model).__module__], "LANDMARK", None)
    if not isinstance(landmark, Landmark):
        raise OrchardError(f"{type(model).__qualname__} is no landmark of Orchard; build one with create_model(...)")
    return landmark


def load_official(
    model: nn.Module, checkpoint: str | Path | Mapping[str, Tensor], source: str | None = None, where: str = ""
) -> dict[str, tuple[str, ...]]:
    """Fill a landmark from an official checkpoint: a file, or tensors under official names out of `where`.

    `source` names the table that translates (`timm`, `torchvision`, `hf`, `google`, as the landmark has them);
    without one, the table that knows most of the names is taken. Returns, for each of our tensors, the official
    names it was made of. Raises OrchardError for any name or shape left over on either side.
    """
    theirs, path = _tensors(checkpoint)
    where = where or path
    landmark = landmark_for(model)
    expected = model.state_dict()
    source, theirs = _guess(landmark, model.config, expected, theirs, where, source)
    table = table_of(landmark, source, model.config)
    theirs = weights_of(landmark, source, theirs)
    check_finite(theirs, where)
    load_exactly(model, _translate(table, theirs, expected, f"{where} as {source} names"), where)
    return {name: foreign_names(table, name)[1] for name in expected}


def export_official(model: nn.Module, source: str) -> dict[str, Tensor]:
    """The model's tensors under official names and in official layout: the inverse of `load_official`."""
    return to_theirs(table_of(landmark_for(model), source, model.config), model.state_dict())


def read_official(
    name: str,
    checkpoint: str | Path | Mapping[str, Tensor],
    source: str | None,
    overrides: Mapping[str, Any],
    where: str = "",
    origin: str = "",
    beside: Beside | None = None,
) -> Official:
    """An official checkpoint of variant `name` as a model: a file, or tensors out of one that `where` names.

    `origin` says where that is from, if not from here, and `beside` what is known of it, if not from files beside it.

    The number of classes is read from the shape of the head, and what else the landmark can tell from the
    tensors (picture size, vocabulary, an extra layer) is read too. Files of transformers or timm beside the weights
    (config.json, preprocessor_config.json) say more than the tensors do, the names of the classes too; without them
    classes are named by their numbers. `overrides` of the configuration win over all.
    """
    theirs, path = _tensors(checkpoint)
    where = where or path
    origin = origin or Path(where).name
    if is_foreign(name):
        return read_timm(name, theirs, overrides, where, origin, beside)
    card, landmark = card_of(name), landmark_of(name)
    beside = beside or read_beside(Path(where), name, landmark)
    given = {**beside.settings, **overrides}
    described = Path(where).with_name(BESIDE)
    check_fields(name, beside.settings, described)
    if source is None and beside.source in landmark.names:
        source = beside.source
    with (
        _remarking(beside),
        building(theirs, described) if beside.settings else nullcontext(),
        torch.device("meta"),
    ):
        sketch = create_model(name, **given)
    source, theirs = _guess(landmark, sketch.config, sketch.state_dict(), theirs, where, source)
    table = table_of(landmark, source, sketch.config)

    def lookup(ours: str) -> Tensor | None:
        return find_ours(table, theirs, ours)

    settings: dict[str, Any] = {}
    head = lookup(f"{sketch.head_name}.weight") if hasattr(sketch, "head_name") else None
    if head is not None:
        settings["num_classes"] = len(head)
    if landmark.infer_config is not None:
        settings |= landmark.infer_config(sketch.config, source, lookup)
    config = configuration(name, **{**settings, **given})
    model = landmark.model(config)
    with _remarking(beside):
        mapping = load_official(model, theirs, source, where)
    about = Portable(
        model=name,
        architecture=architecture_of(model),
        task=getattr(config, "head", card.task),  # the head that the checkpoint has, of a model of several tasks
        classes=beside.names(getattr(config, "num_classes", 0), landmark.first_class),
        preprocess=preprocess_of(landmark, config, source, beside) if hasattr(config, "image_size") else {},
        origin=f"{origin}, {source} names",
    )
    kept = weights_of(landmark, source, theirs)
    ignored = tuple(name for name in theirs if name not in kept)
    return Official(model.eval(), about, mapping, ignored, beside.remarks)


@contextmanager
def _remarking(beside: Beside) -> Iterator[None]:
    """Errors say what a person should know of the files beside, such as that they name another architecture."""
    try:
        yield
    except UsageError:
        raise
    except OrchardError as error:
        raise OrchardError("; ".join([str(error), *beside.remarks])) from None


def import_official(
    name: str, path: str | Path, out: str | Path, source: str | None = None, **overrides: Any
) -> tuple[Portable, dict[str, tuple[str, ...]]]:
    """An official checkpoint of variant `name` becomes a portable model in the folder `out`; see `read_official`.

    `path` may be a name, such as `hub:timm/resnet50.a1_in1k` (see `by_name.py`). A folder that exists is left alone.
    """
    refuse_existing(Path(out))
    there = find_weights(name, path)
    found = read_official(name, there.file, source, overrides, origin=there.origin, beside=there.beside)
    with new_model_folder(Path(out)) as folder:
        save_portable(folder, found.model, found.about)
    return found.about, found.mapping


def refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise OrchardError(f"{out} exists already; name a folder that does not, or remove it first")


@contextmanager
def new_model_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when the model in it is whole: a kill leaves nothing that is refused later."""
    try:
        with atomic_folder(out) as folder:
            yield folder
    except OSError as error:
        raise disk_error(error, out, "nothing of it was written") from None


def table_of(landmark: Landmark, source: str, config: Any) -> Table:
    """The name table of one source for this configuration; an unknown source is refused."""
    if source not in landmark.names:
        raise unknown("source of names", source, landmark.names)
    return landmark.names[source](config)


def _tensors(checkpoint: str | Path | Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """The tensors and where they are from."""
    if isinstance(checkpoint, Mapping):
        return checkpoint, "the checkpoint"
    return read_checkpoint(Path(checkpoint)), str(checkpoint)


def _translate(
    table: Table, theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    try:
        return to_ours(table, theirs, expected)
    except OrchardError as error:
        raise OrchardError(f"{where}: {error}; is it of another model?") from None


def _guess(
    landmark: Landmark,
    config: Any,
    expected: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    where: str,
    source: str | None,
) -> tuple[str, Mapping[str, Tensor]]:
    """The source whose names the checkpoint has most of, and the tensors without a prefix that all names share.

    With a `source` only the prefix is looked for.
    """
    if not landmark.names:
        raise OrchardError("this landmark has no name table, so no official checkpoint can be read into it")
    tables = {name: table_of(landmark, name, config) for name in ([source] if source else landmark.names)}
    states = list(without_prefixes(theirs))
    known = {
        (name, n): _known(table, expected, state) for n, state in enumerate(states) for name, table in tables.items()
    }
    best, prefixes = max(known, key=lambda key: known[key])
    if not known[best, prefixes] and not source:
        raise OrchardError(
            f"{where} has none of the names that {', '.join(landmark.names)} use for this model; its first is "
            f"'{next(iter(theirs), '')}'. Is it of another model?"
        )
    return best, states[prefixes]


def _known(table: Table, expected: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> int:
    """How many names of a table the checkpoint has; none where the source has no such network."""
    try:
        names = {name for ours in expected for name in foreign_names(table, ours)[1]}
    except OrchardError:
        return 0
    return len(names & theirs.keys())


def weights_of(landmark: Landmark, source: str, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a checkpoint without those that the landmark says are no part of the model."""
    others = landmark.not_weights.get(source, ())
    return {name: t for name, t in theirs.items() if not any(fnmatch.fnmatchcase(name, other) for other in others)}


def preprocess_of(landmark: Landmark, config: Any, source: str, beside: Beside = NOTHING) -> dict[str, Any]:
    """How pictures come to this model, in the form that data's `Preprocess` reads.

    Files beside the weights say it, else what is usual for the source. Raises OrchardError where they do not fit.
    """
    channels = config.in_channels
    ways = landmark.preprocess
    numbers = {**IMAGENET, **ways.get("", {}), **ways.get(source, {})}
    if len(numbers["mean"]) == 1:  # the same for all
        numbers |= {key: numbers[key] * channels for key in ("mean", "std")}
    if channels != len(numbers["mean"]):
        numbers |= {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    numbers |= beside.preprocess(config)
    if not len(numbers["mean"]) == len(numbers["std"]) == channels:
        raise OrchardError(f"{beside.folder}: mean and std are of {len(numbers['mean'])} channels, expected {channels}")
    return {"size": picture_size(config), "channels": channels, **numbers}
