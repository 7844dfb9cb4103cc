"""Classes by their names: which are missing in a split, and whose rows the head of a fine-tuned model keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.models import configuration
from orchard.tasks import base

WORDS = {"class": "one class of an image", "classes": "several classes of an image", "number": "numbers of an image"}


def missing_classes(missing: Sequence[str], split: str, record: str = "picture") -> str:
    """Which classes a split cannot be asked about; empty if it has all."""
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return f"the {split} split has no {record} of {', '.join(missing[:5])}{more}" if missing else ""


def fine_tuned_model(
    settings: base.Start, wanted: Mapping[str, Any], classes: Sequence[str], target: str = "class"
) -> nn.Module:
    """A model with the weights of `start_from`, the head's by the names of the classes; others are fresh, and so is
    all of it where the model has learned something else than `target` (`Portable.facts`).

    Of a model that is built on such a trunk, the trunk's weights, and a fresh head.
    """
    folder, about, state = base.read_start(settings)
    model = about.build(**wanted)
    if hasattr(model, "fit_state"):
        saved = configuration(about.model, **about.architecture)
        state = model.fit_state(state, saved)  # type: ignore[operator]
    fresh = model.state_dict()
    head = head_prefixes(model)
    for name, tensor in fresh.items():
        if name in state and state[name].shape != tensor.shape and not name.startswith(head):
            raise OrchardError(
                f"{folder}: '{name}' has shape {tuple(state[name].shape)}, here {tuple(tensor.shape)} is needed; only "
                f"the head and the image size may change"
            )
    fits = {k: state[k] if k in state and state[k].shape == v.shape else v for k, v in fresh.items()}
    known = [name for name in classes if name in about.classes]
    before = about.facts.get("target", "class")
    if before != target:
        fits |= {name: tensor for name, tensor in fresh.items() if name.startswith(head)}
        base.say(f"the head is fresh: {folder} has learned {WORDS[before]}, here it is {WORDS[target]}")
    elif tuple(classes) != about.classes:
        if unnamed(about.classes) and len(classes) != len(about.classes):
            known = []  # places of another list, not names
        for name in (name for name in fresh if name.startswith(head) and name in state):
            fits[name] = head_rows(state[name], fresh[name], about.classes, classes, known)
        base.say(head_words(folder, classes, known))
    if not about.classes:  # a trunk, which has nothing that stands behind its feature maps
        head += tuple(f"{layer}." for layer in getattr(model, "classifier_layers", ()))
    missing = [name for name in fresh if name not in state and not name.startswith(head)]
    if missing:
        raise OrchardError(f"{folder} has no tensor '{missing[0]}', which this {settings.model} needs")
    model.load_state_dict(fits)
    return model


def head_prefixes(model: Any) -> tuple[str, ...]:
    """What the names of the parameters begin with that have a row for each class: the head's, and those of the heads
    of auxiliary classifiers."""
    inner = range(len(getattr(model, "auxiliaries", ())))
    return (f"{model.head_name}.", *(f"auxiliaries.{n}.{model.head_name}." for n in inner))


def unnamed(classes: Sequence[str]) -> bool:
    """Are these the numbers that a model without class names has?"""
    return any(list(classes) == [str(first + n) for n in range(len(classes))] for first in (0, 1))  # 0 is background


def head_rows(saved: Tensor, fresh: Tensor, before: Sequence[str], now: Sequence[str], known: Sequence[str]) -> Tensor:
    """A head's weights or biases, a row for each class: `known` ones from `saved`, the others from `fresh`.

    What follows the classes (a detector's row for nothing) is as it was.
    """
    more = len(saved) - len(before)
    if saved.shape[1:] != fresh.shape[1:] or more < 0 or len(fresh) - len(now) != more:
        return fresh
    rows = fresh.clone()
    for name in known:
        rows[now.index(name)] = saved[before.index(name)]
    if more and known:
        rows[-more:] = saved[-more:]
    return rows


def head_words(folder: Path, classes: Sequence[str], known: Sequence[str]) -> str:
    """What becomes of the head, for the person who waits."""
    new = [name for name in classes if name not in known]

    def some(names: Sequence[str]) -> str:
        return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

    if not known:
        return f"the head is fresh: {folder} knows none of the {len(classes)} classes by name"
    return f"the head goes on for {some(known)}" + (f" and is fresh for {some(new)}" if new else "")
