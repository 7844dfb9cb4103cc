"""Distributional robustness: the worst images nearby, learned from, certified by, and attacked with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stopping import stopped_after
from torch import Tensor, nn

from orchard.app.evaluate import evaluate
from orchard.app.train import train
from orchard.data.batches import ImageBatch
from orchard.data.contracts import Preprocess
from orchard.errors import UsageError
from orchard.tasks.image_classification.attack import Attack
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.robust import WorstCase, evaluating

SCALE = Preprocess(size=(1, 2), channels=1, mean=(0.5,), std=(0.25,))


class Squares(nn.Module):
    """Loss a b² of a value b in [0, 1], with a known answer."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * (images * 0.25 + 0.5).square().flatten(1).sum(1)


def test_the_worst_image_is_where_the_slope_costs_what_it_gains() -> None:
    """max of a (z + d)² - γ d² is at d = a z / (γ - a), for γ > a; each image by itself."""
    a, gamma = 0.5, 2.0
    z = torch.tensor([[[[0.2, 0.0]]], [[[0.8, 0.4]]]])
    images = (z - 0.5) / 0.25
    worst = WorstCase(gamma, 200, SCALE)(Squares(a), images, torch.zeros(2), lambda out, labels: out.mean())
    expected = z * a / (gamma - a)
    torch.testing.assert_close((worst.images - images) * 0.25, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(worst.distances, expected.square().sum((1, 2, 3)), atol=1e-5, rtol=1e-3)


def test_the_first_step_is_the_gradient_and_the_next_are_shorter() -> None:
    slope = torch.tensor([[[[1.0, -2.0]]]])

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs * 0.25 * slope).sum()

    worst = WorstCase(4.0, 1, SCALE)(nn.Identity(), torch.zeros(1, 1, 1, 2), torch.zeros(1), loss)
    torch.testing.assert_close(worst.images * 0.25, slope / 8)  # of a plane's loss the first step is the last


def test_the_model_is_as_it_was_and_has_no_gradients() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    WorstCase(1.0, 3, SCALE)(model, torch.randn(5, 1, 1, 2), torch.zeros(5, dtype=torch.int64), F.cross_entropy)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training and model[3].training and not model[2].training
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model[3].training
        1 / 0  # noqa: B018
    assert model[3].training


def test_what_is_learned_is_the_slope_of_the_worst_case() -> None:
    """φ is a γ z² / (γ - a), whose slope by a is γ² z² / (γ - a)²."""
    a, gamma = 0.5, 2.0
    z = torch.tensor([[[[0.2, 0.0]]], [[[0.8, 0.4]]]])
    objective: Any = ImageClassification(("a", "b"), robust=WorstCase(gamma, 200, SCALE))
    objective.criterion, objective.batch_metrics = lambda out, labels: out.mean(), lambda out, labels: {}
    model = Squares(a)
    model.weight = nn.Parameter(torch.tensor(a))
    loss, metrics = objective.loss(model, ImageBatch((z - 0.5) / 0.25, torch.zeros(2), torch.arange(2)))
    (slope,) = torch.autograd.grad(loss, [model.weight])
    squares = float(z.square().sum((1, 2, 3)).mean())
    assert float(metrics["surrogate_loss"]) == pytest.approx(a * gamma * squares / (gamma - a), rel=1e-4)
    assert float(slope) == pytest.approx(gamma**2 * squares / (gamma - a) ** 2, rel=1e-3)
    assert set(metrics) == {"worst_distance", "surrogate_loss"}


def test_accuracy_under_attack_is_of_those_further_from_the_border_than_its_radius() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[1].weight.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])  # the first value tells, at 0.5
    values = torch.tensor([0.2, 0.45, 0.55, 0.8, 0.3])
    labels = torch.tensor([0, 0, 1, 1, 1])  # the last is wrong without an attack
    images = torch.stack([(values - 0.5) / 0.25, torch.zeros(5)], 1).view(5, 1, 1, 2)
    order = torch.tensor([3, 0, 4, 1, 2])
    batches = [ImageBatch(images[part], labels[part], part) for part in torch.split(order, 3)]
    for radius, expected in ((0.01, 0.8), (0.1, 0.4), (0.4, 0.0)):
        assert Attack(radius, "l2", 5, SCALE).accuracy(model.eval(), batches, labels) == pytest.approx(expected)


def test_an_attack_finds_the_worst_within_its_radius() -> None:
    weight = torch.tensor([[3.0, -4.0], [-3.0, 4.0]])
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[1].weight.data = weight
    images, labels = torch.zeros(1, 1, 1, 2), torch.tensor([0])
    for norm, expected in (("l2", torch.tensor([-0.6, 0.8]) * 0.1), ("linf", torch.tensor([-0.1, 0.1]))):
        moved = Attack(0.1, norm, 5, SCALE)(model, images, labels)  # type: ignore[arg-type]
        torch.testing.assert_close(moved.flatten() * 0.25, expected, atol=1e-6, rtol=1e-5)
    white = torch.full((1, 1, 1, 2), (1 - 0.5) / 0.25)
    moved = Attack(0.3, "linf", 5, SCALE)(model, white, labels)
    torch.testing.assert_close(moved.flatten() * 0.25 + 0.5, torch.tensor([0.7, 1.0]))  # no value leaves [0, 1]


SMALL: dict[str, Any] = {"max_steps": 6, "batch_size": 32, "log_every": 2, "robust.gamma": 1.0, "robust.steps": 3}


def test_robust_training_resumes_to_the_bit_and_is_judged(tmp_path: Path) -> None:
    whole = train("lenet5", "digits", tmp_path / "whole", **SMALL)
    settings = {**SMALL, "checkpoint_steps": 3}
    with stopped_after(4, 6):
        train("lenet5", "digits", tmp_path / "parts", **settings)
    assert train("lenet5", "digits", tmp_path / "parts", **settings)["test"] == whole["test"]
    columns = (tmp_path / "whole" / "log.csv").read_text().splitlines()[0].split(",")
    assert {"worst_distance", "surrogate_loss"} <= {*columns}
    asked = {"evaluation.attack": 0.5, "evaluation.attack_steps": 4, "evaluation.gamma": 1.0}
    found = evaluate(tmp_path / "whole", "digits", settings=asked)["test"]
    assert found["robust_accuracy"] <= found["accuracy"] == whole["test"]["accuracy"]
    assert found["certified_loss"] == pytest.approx(found["surrogate_loss"] + found["worst_distance"])
    assert found["certified_loss"] > found["loss"]
    with pytest.raises(UsageError, match=r"'evaluation\.attack' is for one model's own answers, not test-time"):
        evaluate(tmp_path / "whole", "digits", settings={**asked, "evaluation.tta": "flip"})


def test_models_whose_pixels_do_not_move_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'robust\.gamma': a model of pixels sees colours of a palette"):
        train("imagegpt_classifier_nano", "digits", tmp_path / "run", **{"robust.gamma": 1.0})
