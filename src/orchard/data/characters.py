"""Classes that are characters: a mirrored 2 is no digit, and a mirrored b is a d. Read without torch."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.data.settings import AugmentSettings

DIGITS = frozenset(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))


def are_characters(classes: Sequence[str]) -> bool:
    """Are most classes called by a single letter or digit, of any script, or by a digit's English name?"""
    found = [name for name in classes if (len(name) == 1 and name.isalnum()) or name.lower() in DIGITS]
    return 2 * len(found) > len(classes)


def named(classes: Sequence[str], most: int = 3) -> str:
    """The first classes, by name."""
    return ", ".join(classes[:most]) + (", ..." if len(classes) > most else "")


def mirrored_characters(augment: AugmentSettings, classes: Sequence[str]) -> list[str]:
    """A warning where characters are mirrored, in one line."""
    if not (augment.flip and are_characters(classes)):
        return []
    return [
        f"the classes are characters ({named(classes)}), and augmentation.flip mirrors half of the images; a mirrored "
        "character is another or none: leave it out"
    ]
