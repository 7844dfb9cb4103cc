"""The battery against the references: outputs, gradients and names, for every row of every card."""

import functools

import pytest
import torch
from battery import CARDS, REFERENCES, every_classifier, sketch

from orchard.cards import Reference
from orchard.models import landmark_of
from orchard.weights.names import to_ours
from orchard.weights.proof import compare


@pytest.mark.parametrize("row", REFERENCES, ids=[f"{row.variant}-{row.reference}" for row in REFERENCES])
def test_parity(row: Reference):
    found = compare(row)
    assert not found.problem
    assert found.ok, found


def test_every_landmark_is_proven_at_two_configurations_of_each_package():
    for card in CARDS.values():
        by_package: dict[str, set[str]] = {}
        for row in card.references:
            by_package.setdefault(row.reference.partition(":")[0], set()).add(repr((row.variant, row.ours)))
        every = set().union(*by_package.values())
        for package, configurations in by_package.items():
            # Stored cases may be of several programs, each of which gave one.
            enough = every if package == "golden" else configurations
            assert len(enough) >= 2, f"{card.name} is compared with {package} at one configuration only"


@every_classifier
def test_names_and_shapes_are_those_of_the_package_at_full_size(name):
    timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
    config, names = sketch(name).config, landmark_of(name).names
    builders = {
        "timm": functools.partial(timm.create_model, name) if timm.is_model(name) else None,
        "torchvision": getattr(torchvision.models, name, None),
    }
    known = {source: build for source, build in builders.items() if build is not None and source in names}
    if not known:
        pytest.skip("no package has a network of this name")
    for source, build in known.items():
        with torch.device("meta"):
            theirs = build(num_classes=config.num_classes).state_dict()
        ours = sketch(name).state_dict()
        found = to_ours(names[source](config), theirs, ours)  # which refuses any name or shape left over
        assert {key: tensor.shape for key, tensor in found.items()} == {key: t.shape for key, t in ours.items()}
