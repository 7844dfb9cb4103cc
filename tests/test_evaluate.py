"""`evaluate` asks the job of the model's task, and its figures are shown whatever they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from orchard.app.evaluate import evaluate
from orchard.cli.train import show_figures
from orchard.data.tokenizers import Characters
from orchard.errors import UsageError
from orchard.models import create_model, landmark_of
from orchard.weights.official import preprocess_of
from orchard.weights.portable import Portable, architecture_of, save_portable


def saved(folder: Path, name: str, task: str, classes: tuple[str, ...] = ()) -> Path:
    model: nn.Module = create_model(name)
    config: Any = model.config
    preprocess = preprocess_of(landmark_of(name), config, "") if hasattr(config, "image_size") else {}
    save_portable(folder / name, model, Portable(name, architecture_of(model), task, classes, preprocess))
    return folder / name


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("What a text says, it says again. " * 40)
    return tmp_path / "a.txt"


def test_each_task_has_its_figures(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpt = saved(tmp_path, "gpt2_nano", "text-generation")
    Characters("", "bytes").save(gpt / "text_tokenizer")
    lenet = saved(tmp_path, "lenet5", "image-classification", tuple("0123456789"))
    vqvae = saved(tmp_path, "vqvae_nano", "image-tokenization")
    asked = {
        "perplexity": evaluate(gpt, str(text), "test", {"data.test_fraction": 0.3}),
        "accuracy": evaluate(lenet, "digits", "test"),
        "psnr": evaluate(vqvae, "digits", "validation", {"workers": 0}),
    }
    for figure, answer in asked.items():
        split = "validation" if figure == "psnr" else "test"
        assert answer[split][figure] == answer[split][figure]
        show_figures(answer)
        assert figure in capsys.readouterr().out


def test_settings_and_splits_that_there_are_not(tmp_path: Path) -> None:
    lenet = saved(tmp_path, "lenet5", "image-classification", tuple("0123456789"))
    with pytest.raises(UsageError, match=r"setting 'data\.nope'"):
        evaluate(lenet, "digits", "test", {"nope": 1})
    with pytest.raises(UsageError, match="digits has no dev split"):
        evaluate(lenet, "digits", "dev")


def test_figures_that_not_every_split_has(capsys: pytest.CaptureFixture[str]) -> None:
    show_figures(
        {
            "model": "m", "data": "d", "macs": 1.0,
            "train": {"loss": 1e-9}, "validation": {"loss": 2.0, "recall": 0.5}, "facts": {"kind": "words"},
        }
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "1e-09" in said and "2.0000" in said and "0.5000" in said and "words" not in said
