"""What `orchard data check` reports of a kind of data whose pictures are not compared: counts by split, and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from orchard.data.settings import CaptionSource


@dataclass(frozen=True)
class Checked:
    """A report: `counts` by split, then what there is to know, by name, and lists of records that are worth a look, by
    what each is."""

    source: str
    format: str
    reason: str
    counts: Mapping[str, Mapping[str, int]]
    facts: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    fingerprint: str = ""
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_masks(source: str, settings: CaptionSource) -> Checked:
    """Images and pixels by class, and what is wrong with the files."""
    from orchard.data.masks.sources import open_masks

    data = open_masks(source, settings)
    counts = {
        name: {"images": len(split), **dict(zip(data.classes, split.pixels().tolist(), strict=True))}
        for name, split in data.splits.items()
    }
    made = any(split.endless for split in data.splits.values())
    facts = {"classes": list(data.classes), "counts": "pixels of each class" + (", in its first images" * made)}
    problems = tuple(f"{one.key}: {one.what}" for one in data.problems)
    return Checked(source, data.format, data.reason, counts, facts, problems, data.fingerprint)


def spread(values: np.ndarray) -> list[float]:
    """The 5th percentile, the median and the 95th percentile."""
    return [round(float(value), 1) for value in np.percentile(values, [5, 50, 95])] if len(values) else []


def check_environment(source: str, settings: CaptionSource) -> Checked:
    """What there is to observe and to do."""
    from orchard.data.open_environment import open_environment

    data = open_environment(source)
    facts = {"observation": list(data.observation), "actions": data.actions, "action names": list(data.action_names),
             "return that counts as solved": data.solved_at}  # fmt: skip
    reason = "its source begins with gym: or python:"
    return Checked(source, "environment", reason, {}, facts, (), data.fingerprint)


def check_game(source: str, settings: CaptionSource) -> Checked:
    """What is played on, and by what moves."""
    from orchard.data.games import open_game

    game = open_game(source)
    facts = {"rules": game.rules, "board": [game.rows, game.columns], "actions": game.actions,
             "symmetries": len(game.symmetries[0])}  # fmt: skip
    return Checked(source, "game", "its source begins with game:", {}, facts, (), game.fingerprint)


def check_pairs(source: str, settings: CaptionSource) -> Checked:
    """Pairs by split, and how long their sides are in words."""
    from orchard.data.pairs import open_pairs
    from orchard.data.settings import TextPairSource

    known = settings.model_dump(include=set(TextPairSource.model_fields) & set(type(settings).model_fields))
    data = open_pairs(source, TextPairSource.model_validate(known))
    train = data.splits["train"]
    sample = [train[n] for n in range(min(len(train), 2000))]
    facts = {
        f"words, {language} (5 %, median, 95 %)": spread(np.array([len(pair[side].split()) for pair in sample]))
        for side, language in enumerate(data.languages)
    }
    counts = {name: {"pairs": len(split)} for name, split in data.splits.items()}
    problems = tuple(f"{one.key}: {one.what}" for one in data.problems)
    return Checked(source, data.format, data.reason, counts, facts, problems, data.fingerprint)
