"""The battery against the references: outputs, losses, gradients and names, for every row of every card."""

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from battery import CARDS, CLASSIFICATION, drawn_up, marks
from torch import Tensor, nn

from orchard.cards import Card, Reference
from orchard.models import landmark_of
from orchard.weights.names import Table, find_ours, to_ours
from orchard.weights.proof import compare
from orchard.weights.reference import package_of


def first_of(card: Card) -> Reference | None:
    """The comparison that stands for a card where time is short: a stored one, else what the card names first."""
    stored = [row for row in card.references if package_of(row.reference) == "golden"]
    return (stored or list(card.references) or [None])[0]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{row.variant}-{row.reference}", marks=marks(slow=row is not first_of(card)))
        for card in CARDS.values()
        for row in card.references
    ],
)
def test_parity(row: Reference):
    found = compare(row)
    assert not found.problem
    assert found.ok, found


# The other case of dbn is of one machine, not of the whole net: test_rbm.py.
# Official code gave tensors of one configuration of these; of ProGAN and StyleGAN at two levels, faded and not.
STORED_ONCE = {
    "alphazero", "cic", "context_encoder", "dbn", "fq_biggan", "ircnn", "mdsr", "nezha", "pconv_unet", "ppo", "progan",
    "sagan", "srcnn", "srgan", "stylegan", "stylegan2", "ttsr", "unilm", "zaremba",
}  # fmt: skip


def test_every_landmark_is_proven_at_two_configurations_of_each_package():
    for card in CARDS.values():
        by_package: dict[str, set[str]] = {}
        for row in card.references:
            by_package.setdefault(package_of(row.reference), set()).add(repr((row.variant, row.ours)))
        every = set().union(*by_package.values())
        for package, configurations in by_package.items():
            # Stored cases may be of several programs, each of which gave one.
            enough = every if package == "golden" else configurations
            least = 1 if card.name in STORED_ONCE else 2
            assert len(enough) >= least, f"{card.name} is compared with {package} at one configuration only"


def as_theirs(
    name: str, sketch: nn.Module, table: Table, theirs: Mapping[str, Tensor], source: str
) -> tuple[nn.Module, Table]:
    """The variant with what the landmark reads off a checkpoint, as when it is imported; and its name table."""
    landmark: Any = landmark_of(name)
    if landmark.infer_config is None:
        return sketch, table
    read = landmark.infer_config(sketch.config, source, lambda ours: find_ours(table, theirs, ours))
    model = drawn_up(name, **read)
    return model, landmark.names[source](model.config)


@pytest.mark.parametrize(
    "card",
    [
        pytest.param(card, id=card.name, marks=marks(slow=True))
        for card in CARDS.values()
        if card.task == CLASSIFICATION
    ],
)
def test_names_and_shapes_are_those_of_the_package_at_full_size(card: Card):
    timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
    compared = 0
    for name in card.variants:
        sketch, names = drawn_up(name), landmark_of(name).names
        builders = {
            "timm": functools.partial(timm.create_model, name) if timm.is_model(name) else None,
            "torchvision": getattr(torchvision.models, name, None),
        }
        for source, build in builders.items():
            if build is None or source not in names:
                continue
            with torch.device("meta"):
                theirs = build(num_classes=sketch.config.num_classes).state_dict()
            model, table = as_theirs(name, sketch, names[source](sketch.config), theirs, source)
            ours = model.state_dict()
            found = to_ours(table, theirs, ours)  # which refuses any name or shape left over
            assert {key: tensor.shape for key, tensor in found.items()} == {key: t.shape for key, t in ours.items()}
            compared += 1
    if not compared:
        pytest.skip("no package has a network of these names")
