"""Learning from a teacher: losses by their formulas, what a teacher may be, a training that goes on to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.app.train import train
from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.tasks.image_classification.distillation import as_taken, hint_loss, order_of, soft_loss
from orchard.training.callbacks import Callback

SMALL: dict[str, Any] = {
    "max_steps": 6, "batch_size": 32, "checkpoint_steps": 2, "loggers": "", "augmentation.mixup": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of another size than the students, whose images are brought to it."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    train("lenet5", "digits", out, max_steps=6, image_size=20, loggers="")
    return out


def test_losses_are_those_of_the_papers():
    student, teacher = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1))
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    assert torch.allclose(soft_loss(student, teacher, 3.0), 9 * (p * (p / q).log()).sum(1).mean())
    by_torch = nn.KLDivLoss(reduction="batchmean")((student / 3).log_softmax(1), p)
    assert torch.allclose(soft_loss(student, teacher, 3.0), 9 * by_torch)
    ours, theirs = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 4, 4)
    pooled = theirs.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    assert torch.allclose(hint_loss(ours, theirs), ((ours - pooled) ** 2).mean() / 2)


def test_a_teacher_is_given_what_it_was_trained_with():
    grey, colour = Preprocess((8, 8), 1, (0.5,), (0.2,)), Preprocess((4, 4), 3, (0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    levels = torch.full((1, 1, 8, 8), 0.7)
    taken = as_taken((levels - 0.5) / 0.2, grey, colour)
    assert taken.shape == (1, 3, 4, 4)
    assert torch.allclose(taken[0, :, 0, 0], torch.tensor([0.6, 0.5, 0.2]), atol=1e-6)
    back = as_taken(taken, colour, grey)
    assert torch.allclose(back, torch.full((1, 1, 8, 8), 1.0), atol=1e-5)


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "model.safetensors")


class _StopAt(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_step(self, moment: Any) -> None:
        if moment.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("hint", [None, (2, 1)])
def test_a_training_with_a_teacher_goes_on_to_the_bit(teacher: Path, tmp_path: Path, hint: tuple[int, int] | None):
    settings = {**SMALL, "distillation.teacher": str(teacher), "distillation.hint": hint}
    whole = train("lenet5", "digits", tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        train("lenet5", "digits", tmp_path / "cut", callbacks=[_StopAt(5)], **settings)
    checkpoint = max((tmp_path / "cut" / "checkpoints").iterdir())
    learned = load_file(checkpoint / "model.safetensors")
    assert len(learned) == len(weights(tmp_path / "whole")) + (2 if hint else 0), "no tensor of the teacher"
    resumed = train("lenet5", "digits", tmp_path / "cut", **settings)
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole["test"] == resumed["test"] and whole["parameters"] == sum(t.numel() for t in ours.values())
    facts = json.loads((tmp_path / "whole" / "run.json").read_text())["data"]["teacher"]
    assert facts["folder"] == str(teacher / "model") and len(facts["fingerprint"]) == 64


def test_another_teacher_in_the_same_place_is_noticed(teacher: Path, tmp_path: Path):
    shutil.copytree(teacher / "model", tmp_path / "teacher")
    settings = {**SMALL, "distillation.teacher": str(tmp_path / "teacher")}
    with pytest.raises(KeyboardInterrupt):
        train("lenet5", "digits", tmp_path / "run", callbacks=[_StopAt(3)], **settings)
    train("lenet5", "digits", tmp_path / "other", max_steps=1, image_size=20, loggers="")
    shutil.copytree(tmp_path / "other" / "model", tmp_path / "teacher", dirs_exist_ok=True)
    with pytest.raises(OrchardError, match="holds another model than the one that this run has learned from"):
        train("lenet5", "digits", tmp_path / "run", **settings)


def test_classes_are_matched_by_name_and_others_refused(teacher: Path, tmp_path: Path):
    known = load(teacher)
    assert order_of(known, tuple(reversed(known.classes))) == list(range(9, -1, -1))
    with pytest.raises(OrchardError, match=r"distillation.teacher: .* knows other classes .*: it lacks 'x'"):
        order_of(known, ("x", *known.classes[1:]))
    with pytest.raises(OrchardError, match="it has '9' too"):
        order_of(known, known.classes[:9])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"distillation.temperature": 2.0}, "is for a training with a teacher"),
        ({"distillation.teacher": "nowhere"}, "nowhere is neither a run nor a model's folder"),
        ({"distillation.hint": (4, 1)}, "LeNet5 has no feature stage 4; it has 2"),
        ({"distillation.weight": 1.5}, "distillation.weight"),
    ],
)
def test_a_wrong_call_is_one_line(teacher: Path, tmp_path: Path, settings: dict[str, Any], said: str):
    if "distillation.temperature" not in settings:
        settings = {"distillation.teacher": str(teacher), **settings}
    with pytest.raises(UsageError, match=said) as caught:
        train("lenet5", "digits", tmp_path / "run", **settings)
    assert "\n" not in str(caught.value)
