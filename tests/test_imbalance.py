"""Classes of which there are few images, and probabilities that mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

import orchard
from orchard.data.balanced import BalancedOrder
from orchard.data.settings import ImageSource
from orchard.data.sources import open_data
from orchard.inference.outputs import OneClass, outputs_of
from orchard.tasks.image_classification.imbalance import class_weights
from orchard.tasks.image_classification.metrics import best_temperature, calibration_error
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.settings import Settings


def settings(**more: object) -> Settings:
    return Settings.model_validate({"model": "lenet5", "data": {"source": "digits"}, **more})


def test_a_balanced_order_draws_every_group_equally_often_and_nothing_again_too_soon() -> None:
    groups = np.array([0] * 90 + [1] * 10 + [2] * 20)
    order = BalancedOrder(3, groups)
    for epoch in range(3):
        drawn = order(epoch, 0, 120)
        assert np.bincount(groups[drawn % 120]).tolist() == [40, 40, 40]
        assert len(set(drawn.tolist())) == 120, "a record that comes again could not be told from the first time"
        assert set(drawn[groups[drawn % 120] == 1] % 120) == set(range(90, 100))
        assert (order(epoch, 33, 41) == drawn[33:41]).all()
    large = np.concatenate([order(epoch, 0, 120) for epoch in range(9)]) % 120
    counts = np.bincount(large[groups[large] == 0], minlength=90)
    assert counts.min() == counts.max() == 4


def test_balanced_weights_are_scikit_learns() -> None:
    data = open_data("digits", ImageSource(source="digits"))
    found = class_weights(settings(class_weights="balanced"), data)
    labels = data.splits["train"].labels
    assert found is not None
    assert found.numpy() == pytest.approx(compute_class_weight("balanced", classes=np.arange(10), y=labels))


def test_the_loss_has_the_weights_and_a_class_that_is_not_there_is_named() -> None:
    data = open_data("digits", ImageSource(source="digits"))
    task = ImageClassification.for_training(data, settings(class_weights={"3": 5.0}))
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 10), torch.tensor([3, 3, 1, 2, 3, 0, 9, 3])
    each = F.cross_entropy(logits, labels, reduction="none")
    weights = torch.where(labels == 3, 5.0, 1.0)
    torch.testing.assert_close(task.criterion(logits, labels), (each * weights).sum() / weights.sum())
    with pytest.raises(orchard.UsageError, match="class_weights: unknown class 'tree'"):
        class_weights(settings(class_weights={"tree": 2.0}), data)


def test_a_temperature_makes_certain_answers_modest() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 5)
    labels = torch.distributions.Categorical(logits=logits).sample()
    assert best_temperature(logits * 3, labels) == pytest.approx(3, rel=0.1)
    assert calibration_error(logits * 3 / best_temperature(logits * 3, labels), labels) < 0.03


def test_the_temperature_is_kept_with_the_model_and_answers_have_it(tmp_path: Path) -> None:
    options = {"temperature_scaling": True, "balanced_sampling": True, "class_weights": "balanced"}
    learned = orchard.train("lenet5", "digits", tmp_path / "run", epochs=2, **options)
    facts = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["facts"]
    assert facts["target"] == "class" and facts["temperature"] != 1
    found = orchard.evaluate(tmp_path / "run", "digits")["test"]
    assert found["loss"] == pytest.approx(learned["test"]["loss"], rel=1e-4)
    outputs = outputs_of(["a", "b"], {"target": "class", "temperature": 2.0}, "here")
    assert isinstance(outputs, OneClass)
    logits = np.array([[3.0, -1.0]], np.float32)
    expected = (torch.from_numpy(logits) / 2).softmax(1).numpy()
    assert outputs.answers(logits) == pytest.approx(expected)
    assert outputs.tensor(torch.from_numpy(logits)).numpy() == pytest.approx(expected)
    with pytest.raises(orchard.OrchardError, match=r"facts\.temperature"):
        outputs_of(["a", "b"], {"target": "class", "temperature": 0}, "here")
