"""Transformer-XL: what a memory changes and what it does not, the adaptive softmax, and a training that is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from orchard.app.train import train
from orchard.inference.sampling import Sampling
from orchard.models import create_model
from orchard.tasks.text_generation.pipeline import TextGenerator
from orchard.tasks.text_generation.streams import read_stream
from orchard.training.loop import Trainer
from orchard.training.state import Interrupted

TINY: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2, "head_width": 8, "inner": 20, "vocabulary": 30}


def model_of(**changes: Any) -> Any:
    torch.manual_seed(0)
    model: Any = create_model("transformer_xl_nano", **{"embedding": 16, "context": 5, "memory": 24, **TINY, **changes})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_with_a_memory_of_all_segments_say_what_the_whole_says() -> None:
    model, tokens = model_of(), torch.randint(30, (21,))
    whole = -model(tokens[None, :-1])[0].log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
    torch.testing.assert_close(torch.cat(list(read_stream(model, tokens))), whole, rtol=1e-4, atol=1e-5)
    short = model_of(memory=5)
    forgets = torch.cat(list(read_stream(short, tokens)))
    torch.testing.assert_close(forgets[:10], whole[:10], rtol=1e-4, atol=1e-5)  # two layers of five see all of these
    assert (forgets[10:] - whole[10:]).abs().max() > 1e-3


@pytest.mark.parametrize("division", [1, 2])
def test_the_adaptive_softmax_is_a_distribution_and_its_loss_that_of_it(division: int) -> None:
    model, tokens = model_of(cutoffs=(10, 18), division=division), torch.randint(30, (3, 9))
    scores = model(tokens[:, :-1])
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(3, 8), rtol=1e-5, atol=1e-5)
    nats = model.nll(tokens[:, :-1], tokens[:, 1:], model.start(3, 8))
    expected = F.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(3, 8)
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-5)


def test_a_run_that_was_stopped_remembers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat; a dog ran to the sea.\n" * 30)
    settings: dict[str, Any] = {
        **{f"architecture.{name}": value for name, value in TINY.items() if name != "vocabulary"},
        "architecture.embedding": 16, "architecture.context": 8, "architecture.memory": 12, "batch_size": 4,
        "max_steps": 6, "text.tokenizer": "characters", "checkpoint_steps": 2,
    }  # fmt: skip
    step, stops = Trainer.step, [-1, 3, -1]

    def stop(self: Trainer, batches: Any) -> None:
        if self.state.step == stops[0]:
            raise Interrupted("here")
        step(self, batches)

    monkeypatch.setattr(Trainer, "step", stop)
    train("transformer_xl_nano", str(text), tmp_path / "whole", **settings)
    stops.pop(0)
    with pytest.raises(Interrupted):
        train("transformer_xl_nano", str(text), tmp_path / "run", **settings)
    stops.pop(0)
    train("transformer_xl_nano", str(text), tmp_path / "run", **settings)
    expected, found = (load_file(newest(tmp_path / name)) for name in ("whole", "run"))
    assert expected.keys() == found.keys() and expected["carried2"].tolist() == [12] * 4  # all of the memory is full
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert len(TextGenerator(tmp_path / "run")(["the"], length=30, sampling=Sampling(temperature=0))[0]) == 30


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
