"""Weights that are asked for by name instead of by file: where they are, and what is known of them.

`hub:OWNER/NAME[@REVISION]` is a repository of the Hugging Face Hub, `torchvision:WEIGHTS` one of torchvision's sets of
weights for the model, `card:NAME` a file whose URL the model's card gives. All else is a file or folder here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.cards import Weights, card_of
from orchard.errors import OrchardError, UsageError, unknown
from orchard.models import configuration
from orchard.models.foreign import is_foreign
from orchard.weights import hub
from orchard.weights.beside import WEIGHT_FILES, Beside, distinct
from orchard.weights.download import LARGEST, download

SCHEMES = (hub.SCHEME, "torchvision:", "card:")
VOCABULARIES = (
    ("vocab.json", "merges.txt"),
    ("encoder.json", "vocab.bpe"),
    ("vocab.txt",),
    ("bpe_simple_vocab_16e6.txt.gz",),
)


@dataclass(frozen=True)
class Found:
    """A checkpoint on this machine."""

    file: Path
    origin: str  # as the model's folder says where it is from
    beside: Beside | None = None  # what is known of it, where that does not lie in files beside it
    vocabulary: Sequence[Path] = ()  # files of a text tokenizer that came with it


def find_weights(name: str, place: str | Path) -> Found:
    """The checkpoint for variant `name`, fetched where it is asked for by name.

    Raises UsageError for a name that there is not, OrchardError where it cannot be fetched.
    """
    scheme = next((one for one in SCHEMES if str(place).startswith(one)), "")
    if scheme == hub.SCHEME:
        wanted = tuple(file for names in VOCABULARIES for file in names)
        folder, origin = hub.fetch(str(place), wanted, largest_for(name))
        return _in_folder(folder, origin)
    if scheme == "torchvision:":
        return _of_torchvision(name, str(place).removeprefix(scheme))
    if scheme == "card:":
        return _of_card(name, str(place).removeprefix(scheme))
    if Path(place).is_dir():
        return _in_folder(Path(place), "")
    return Found(Path(place), Path(place).name)


def largest_for(name: str) -> int:
    """Bytes that weights of this variant may have: twice those of float32, and in any case some."""
    return max(LARGEST, 0 if is_foreign(name) else 8 * card_of(name).variants[name].parameters)


def _in_folder(folder: Path, origin: str) -> Found:
    there = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not there:
        raise UsageError(f"{folder} holds no checkpoint; expected {', '.join(WEIGHT_FILES)} in it, or name the file")
    complete = (names for names in VOCABULARIES if all((folder / name).is_file() for name in names))
    vocabulary = [folder / name for name in next(complete, ())]
    return Found(there[0], origin or there[0].name, vocabulary=vocabulary)


def _of_card(name: str, which: str) -> Found:
    known: dict[str, Weights] = {
        row.name: row for row in (() if is_foreign(name) else card_of(name).weights) if name in row.files
    }
    if not known:
        raise UsageError(f"the card of {name} gives no URL of weights")
    if which not in known:
        raise unknown(f"weights of {name}", which, known)
    row = known[which]
    return Found(download(row.files[name]), row.files[name], vocabulary=[download(url) for url in row.vocabulary])


def _of_torchvision(name: str, which: str) -> Found:
    """`which` is `IMAGENET1K_V2` or `DEFAULT`, or with its enum, as in `ResNet50_Weights.IMAGENET1K_V2`."""
    from torchvision.models import get_model_weights, list_models

    enum, _, short = which.rpartition(".")
    model = None if is_foreign(name) else _torchvision_name(name, list_models())
    kinds: list[Any] = [get_model_weights(one) for one in ([model] if model else list_models())]
    if enum:
        kinds = [kind for kind in kinds if kind.__name__ == enum]
    elif model is None:
        raise UsageError(f"torchvision has no model {name!r}; say which: torchvision:CLASS.WEIGHTS, as its enums are")
    if not kinds:
        of = f"the weights of torchvision's {model}" if model else "weights of torchvision's"
        raise UsageError(f"{enum!r} are not {of}" + (f": those are {get_model_weights(model)}" if model else ""))
    if short not in kinds[0].__members__:
        raise unknown(f"weights of {kinds[0].__name__}", short, kinds[0].__members__)
    weights: Any = kinds[0][short]
    file = download(weights.url)
    return Found(file, f"torchvision:{type(weights).__name__}.{weights.name}, {file.name}", _beside(name, weights))


def _torchvision_name(name: str, known: Sequence[str]) -> str | None:
    """What torchvision calls a variant: what its card compares it with, else the same name."""
    of_card = (row.reference for row in card_of(name).references if row.variant == name)
    named = [one.removeprefix("torchvision:") for one in of_card if one.startswith("torchvision:")]
    return next((one for one in (*named, name) if one in known), None)


def _beside(name: str, weights: Any) -> Beside:
    """What torchvision says of its weights: the size of images, how they come to the model, and the classes."""
    from torchvision.transforms._presets import ImageClassification

    way = weights.transforms()
    categories = weights.meta.get("categories", ())
    if "__background__" in categories[:1]:  # a detector's, whose files have names of several versions
        return Beside(classes=distinct(categories[1:]))
    classes = distinct(categories)
    if not isinstance(way, ImageClassification):
        return Beside(classes=classes, source="torchvision")
    size, before = way.crop_size[0], way.resize_size[0]
    if size > before:
        raise OrchardError(f"{weights}: images of {size} are cut out of images of {before}, which is not done here")
    ways = {
        "mean": tuple(way.mean), "std": tuple(way.std), "crop": size / before, "resize": "shorter-side",
        "interpolation": way.interpolation.value,
    }  # fmt: skip
    sized = is_foreign(name) or hasattr(configuration(name), "image_size")
    return Beside(settings={"image_size": size} if sized else {}, classes=classes, ways=ways, source="torchvision")
