"""Models with classes: what they learn from, which classes they are asked for, and whether a judge sees them.

A model has classes where its configuration has `num_classes`. Of K classes, image n is of class n modulo K where no
class is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchard.data.contracts import ImageData
from orchard.data.sources import open_data
from orchard.data.unlabelled import open_pictures, open_with_classes
from orchard.errors import OrchardError, UsageError, unknown
from orchard.given import Given
from orchard.models import configuration
from orchard.tasks import base
from orchard.tasks.unconditional_image_generation.settings import Settings

NUMBER = "num_classes"


def learns_classes(name: str) -> bool:
    """Has a variant classes?"""
    return bool(getattr(configuration(name), NUMBER, 0))


def open_for(settings: Settings, source: str | Given) -> ImageData:
    """The images that a model learns from: with their classes, as a classifier has them, where it has such.

    Raises OrchardError for images without classes, and for a class without a training image; UsageError for folds of
    images without classes.
    """
    if not learns_classes(settings.model):
        if settings.data.folds is not None:
            raise UsageError(f"setting 'data.folds' cuts each class into parts; {settings.model} has no classes")
        finds_some = getattr(configuration(settings.model), "categories", ())  # and compares them with those there are
        return (open_with_classes if finds_some else open_pictures)(source, settings.data)
    try:
        data = open_data(source, settings.data)
    except UsageError:
        raise
    except OrchardError as error:
        raise OrchardError(f"{settings.model} learns images by their classes: {error}") from None
    name = data.source
    if data.target != "class":
        raise OrchardError(f"{settings.model} learns one class of each image; {name} has {data.target}")
    seen = np.bincount(data.splits["train"].labels, minlength=len(data.classes))
    if missing := [one for one, count in zip(data.classes, seen, strict=True) if not count]:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise OrchardError(f"{name} has no training image of {some}, which {settings.model} could not learn")
    return data


def with_classes(settings: Settings, classes: Sequence[str]) -> Settings:
    """The settings of a model with as many classes as the data have.

    Raises UsageError where another number is asked for, or where the model that it starts from has other classes.
    """
    asked = settings.architecture.get(NUMBER, len(classes))
    if asked != len(classes):
        raise UsageError(f"setting 'architecture.{NUMBER}' is {asked}; the data have {len(classes)} classes")
    if settings.start_from:
        known = base.read_start(settings)[1].classes
        unnamed = known == tuple(map(str, range(len(known))))  # as official files have them
        if len(known) != len(classes) or (known != tuple(classes) and not unnamed):
            raise UsageError(
                f"{settings.start_from} has learned {_few(known)}, here there are {_few(classes)}; a model with "
                f"classes starts from one of the same"
            )
    return settings.model_copy(update={"architecture": {**settings.architecture, NUMBER: len(classes)}})


def _few(classes: Sequence[str]) -> str:
    return ", ".join(classes) if len(classes) <= 5 else f"{len(classes)} classes ({', '.join(classes[:3])}, ...)"


def labels_of(model: Any, numbers: Sequence[int]) -> list[int]:
    """The classes of images where none is asked for; none of a model without classes."""
    count = getattr(model.config, NUMBER, 0)
    return [number % count for number in numbers] if count else []


def class_numbers(words: str, classes: Sequence[str]) -> list[int]:
    """The classes that `words` name, as `cat,dog`: by their names or numbers, from 0.

    Raises UsageError for a model without classes and for one that is not known, with those that are.
    """
    if not classes:
        raise UsageError("option 'classes' is for models that have learned classes; this one has none")
    named = {name: number for number, name in enumerate(classes)}
    found = []
    for word in [words] if words in named else [word.strip() for word in words.split(",")]:
        if word in named:
            found.append(named[word])
        elif word.isdecimal() and int(word) < len(classes):
            found.append(int(word))
        else:
            if len(classes) > 12:
                raise unknown("class", word, classes)
            last = len(classes) - 1
            raise UsageError(f"unknown class '{word}'; known: {', '.join(classes)}, or by their numbers, 0 to {last}")
    return list(dict.fromkeys(found))
