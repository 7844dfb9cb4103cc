"""Captions for named sets, made of a wording and the name of a class.

Each language has wordings to learn from and others that are held out, to ask with: a model that answers them has
understood the words and not the sentences. Every word (in Chinese every character) of a held-out wording occurs in one
to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchard.errors import unknown


@dataclass(frozen=True)
class Wordings:
    """A set in one language: names of its classes in their order, wordings for training, and held-out ones."""

    classes: tuple[str, ...]
    training: tuple[str, ...]
    held_out: tuple[str, ...]


WORDINGS: Mapping[str, Mapping[str, Wordings]] = {
    "digits": {
        "en": Wordings(
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            ("a handwritten {}", "the digit {}", "the number {}", "a picture of the digit {}", "{} written by hand",
             "a small picture of a handwritten {}"),
            ("the handwritten digit {}", "a picture of the number {}", "the digit {} written by hand"),
        ),
        "zh": Wordings(
            ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九"),
            ("手写数字{}", "手写的{}", "数字{}的图片", "一个手写的数字{}", "一张小图片，上面是{}"),
            ("手写的数字{}", "一张数字{}的图片", "图片上是手写数字{}"),
        ),
    },
    "fashion-mnist": {
        "en": Wordings(
            ("a T-shirt", "trousers", "a pullover", "a dress", "a coat", "a sandal", "a shirt", "a sneaker", "a bag",
             "an ankle boot"),
            ("{}", "a photo of {}", "a small picture of {}", "{} on a black background", "{} in grey"),
            ("a picture of {}", "a photo of {} on a black background", "a small photo of {} in grey"),
        ),
        "zh": Wordings(
            ("一件T恤", "一条裤子", "一件套头衫", "一条连衣裙", "一件大衣", "一只凉鞋", "一件衬衫", "一只运动鞋",
             "一个包", "一只短靴"),
            ("{}", "{}的照片", "小图片上是{}", "黑色背景上的{}", "灰色的{}"),
            ("{}的图片", "黑色背景上{}的照片", "小照片上是{}"),
        ),
    },
}  # fmt: skip


def wordings(name: str, language: str) -> Wordings:
    """Raises UsageError for a set or a language without wordings."""
    if name not in WORDINGS:
        raise unknown("set with captions", name, WORDINGS)
    if language not in WORDINGS[name]:
        raise unknown("language", language, WORDINGS[name])
    return WORDINGS[name][language]


def fill(templates: Sequence[str], noun: str) -> tuple[str, ...]:
    """Each wording with the name of a class in the place of {}."""
    return tuple(template.replace("{}", noun) for template in templates)


def prompts(name: str, language: str, held_out: bool = True) -> list[tuple[str, int]]:
    """What to ask a model of a named set for, and which class should come: every wording for every class in turn."""
    words = wordings(name, language)
    templates = words.held_out if held_out else words.training
    return [(text, label) for label, noun in enumerate(words.classes) for text in fill(templates, noun)]
