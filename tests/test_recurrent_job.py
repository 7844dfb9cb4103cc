"""Training language models that carry a state: streams, resumed runs, averages, writing and evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from orchard.app.train import train
from orchard.data.contracts import DataSettings
from orchard.data.text import TextSplit, open_text, tokenize
from orchard.data.text_streams import TextStreams
from orchard.data.tokenizers import load_tokenizer
from orchard.data.words import Words
from orchard.errors import OrchardError, UsageError
from orchard.inference.detokenizer import StreamingDetokenizer
from orchard.inference.loading import load
from orchard.inference.sampling import Sampling
from orchard.models import create_model
from orchard.tasks.text_generation import job as text_generation
from orchard.tasks.text_generation.averaging import NonMonotonicAverage
from orchard.tasks.text_generation.pipeline import TextGenerator
from orchard.tasks.text_generation.streams import read_stream
from orchard.training.loop import Trainer
from orchard.training.state import Interrupted

SMALL: dict[str, Any] = {
    "architecture.width": 12,
    "architecture.context": 8,
    "architecture.dropout": 0.2,
    "batch_size": 4,
    "epochs": 3,
    "clip_norm": 0.25,
    "optimizer.name": "sgd",
    "optimizer.lr": 20.0,
    "optimizer.momentum": 0.0,
    "optimizer.weight_decay": 0.0,
    "log_every": 4,
    "text.tokenizer": "words",
    "recurrent.varied_length": True,
    "recurrent.activation_regularization": 0.1,
    "recurrent.temporal_regularization": 0.1,
    "recurrent.nt_asgd": 1,
    "evaluate_steps": 3,
}
LINES = ("the cat sat on the mat \n", "the dog ran to the <unk> cat \n", "a cat saw the dog \n")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("".join(LINES[n * n % 3] for n in range(80)))
    return path


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train("zaremba_nano", str(text), out, **SMALL)
    return out


def newest(run: Path) -> dict[str, torch.Tensor]:
    """What the last checkpoint holds of the model and what is kept beside it."""
    path = max((run / "checkpoints").glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    return load_file(path)


def test_a_run_learns_averages_and_is_judged_as_a_stream(whole: Path, text: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["test"]["loss"] < 2.2  # of 13 words, log 13 is 2.56
    state = newest(whole)
    assert state["average.averaging"] and state["average.count"] > 0
    loaded = load(whole)
    assert metrics["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    found = text_generation.evaluate_loaded(loaded, str(text), "test", DataSettings())
    assert found["loss"] == pytest.approx(metrics["test"]["loss"], rel=1e-5)
    generator = TextGenerator(whole)
    data = tokenize(open_text(str(text), DataSettings()), generator.tokenizer)
    nats = generator.token_nll(data.splits["test"].tokens.tolist())
    assert float(nats.mean()) == pytest.approx(metrics["test"]["loss"], rel=1e-5)
    assert isinstance(load_tokenizer(whole / "model" / "text_tokenizer"), Words)


def test_a_run_that_was_stopped_ends_in_the_same_bits(
    whole: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carried states, the average and its trigger among them."""
    out, step = tmp_path / "run", Trainer.step
    settings = {**SMALL, "checkpoint_steps": 2, "checkpoint_minutes": 0}

    def stop(self: Trainer, batches: Any) -> None:
        if self.state.step == stops[0]:
            stops.pop(0)
            raise Interrupted("here")
        step(self, batches)

    stops = [5, 14, -1]
    monkeypatch.setattr(Trainer, "step", stop)
    for _ in range(2):
        with pytest.raises(Interrupted):
            train("zaremba_nano", str(text), out, **settings)
    train("zaremba_nano", str(text), out, **settings)
    expected, found = newest(whole), newest(out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_accumulating_learns_the_same_and_carries_the_same(text: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "architecture.dropout": 0.0, "max_steps": 4}
    for parts in (1, 2):
        train("zaremba_nano", str(text), tmp_path / str(parts), **settings, accumulate=parts)
    one, two = newest(tmp_path / "1"), newest(tmp_path / "2")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)


def test_writing_goes_on_from_the_state(whole: Path) -> None:
    """What is written is most likely after all that stands before it, far beyond a segment."""
    generator = TextGenerator(whole)
    prompts = ["the cat sat on the mat \n the dog", "a cat"]
    texts = generator(prompts, length=20, sampling=Sampling(temperature=0))
    for prompt, found in zip(prompts, texts, strict=True):
        assert generator([prompt], length=20, sampling=Sampling(temperature=0)) == [found]
        before = generator.tokenizer.encode(prompt)
        ids = before + generator.tokenizer.encode(found)
        logits = generator.model(torch.tensor([ids]))[0]
        logits[:, generator.tokenizer.specials["unknown"]] = -torch.inf
        assert logits.argmax(-1)[len(before) - 1 : -1].tolist() == ids[len(before) :]
    with pytest.raises(UsageError, match="this one writes in fp32"):
        TextGenerator(whole, precision="bf16")(["a"], length=1, sampling=Sampling())


def test_segments_of_any_length_say_the_same() -> None:
    torch.manual_seed(0)
    model: Any = create_model("zaremba_nano", width=8, vocabulary=11).eval()
    tokens = torch.randint(11, (50,))
    whole = torch.cat(list(read_stream(model, tokens)))
    logits = model(tokens[None, :-1])[0].log_softmax(-1)
    torch.testing.assert_close(whole, -logits.gather(1, tokens[1:, None])[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("varied", [False, True])
def test_streams_read_every_token_of_every_pass_in_order(varied: bool) -> None:
    split = TextSplit("t/train", np.arange(1003, dtype=np.uint16), 0, 0, 0)
    streams = TextStreams(split, 4, 20, seed=3, varied=varied)
    batches = streams.batches(0)
    found, number = [], 0
    for _ in range(3):
        turn, place = streams.locate(number)
        pieces = []
        while streams.locate(number)[0] == turn:
            batch = next(batches)
            assert batch.begins.all() == batch.begins.any() == (place == 0)
            assert streams.length_of(number) == batch.inputs.shape[1]
            assert torch.equal(batch.tokens[:, 0], batch.indices)  # these tokens are their own indices
            pieces.append(batch.targets)
            place, number = place + 1, number + 1
        found.append([piece.shape[1] for piece in pieces])
        targets = torch.cat(pieces, dim=1)
        assert torch.equal(targets, torch.arange(1000).view(4, 250)[:, 1:])
    assert abs(len(found[0]) - len(streams)) <= 2
    assert (len(set(map(tuple, found))) == 3) == varied
    assert all(length >= 5 for lengths in found for length in lengths[:-1])
    again = next(TextStreams(split, 4, 20, seed=3, varied=varied).batches(17))
    assert torch.equal(again.tokens, list(zip(range(18), streams.batches(0), strict=False))[17][1].tokens)


def test_words_are_those_of_the_published_counts(tmp_path: Path) -> None:
    tokenizer = Words.of(LINES)
    ids = tokenizer.encode("a dog  sat\nwhere?")
    assert tokenizer.decode(ids) == "a dog sat\n<unk>"
    detokenizer = StreamingDetokenizer(tokenizer, ids[:1])
    assert "".join(detokenizer.add(one) for one in ids[1:]) == " dog sat\n<unk>"
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).encode("a dog  sat\nwhere?") == ids
    for name in ("train", "valid", "test"):
        (tmp_path / f"ptb.{name}.txt").write_text("".join(LINES))
    texts = open_text(f"ptb:{tmp_path}", DataSettings())
    split = tokenize(texts, tokenizer).splits["validation"]
    assert len(split) == split.words == 21 and texts.splits.keys() == {"train", "validation", "test"}
    with pytest.raises(UsageError, match="each word once"):
        Words(("a", "a"))


@pytest.mark.parametrize(
    ("model", "changes", "error", "words"),
    [
        (
            "gpt2_nano",
            {"recurrent.nt_asgd": 5},
            UsageError,
            "are for models that carry a state; gpt2_nano reads windows",
        ),
        ("zaremba_nano", {"devices": 2}, UsageError, "trains on one device"),
        ("zaremba_nano", {"ema": 0.9}, UsageError, "both average the weights"),
        ("zaremba_nano", {"batch_size": 64}, OrchardError, "at least 576 are needed for 64 streams with segments of 8"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: str, changes: dict[str, Any], error: type[Exception], words: str, text: Path, tmp_path: Path
) -> None:
    settings = SMALL if model == "zaremba_nano" else {"text.tokenizer": "words", "architecture.context": 8}
    with pytest.raises(error, match=words):
        train(model, str(text), tmp_path / "run", **{**settings, **changes})


def test_the_average_is_the_mean_of_what_came_after_it_began() -> None:
    model = torch.nn.Linear(2, 1)
    average = NonMonotonicAverage(model, 2)
    seen = []
    for step, loss in enumerate([3.0, 2.0, 2.5, 2.2, 2.1, 2.4]):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(model)
        seen.append(bool(average.averaging))
        average.validated(loss)
    assert seen == [False] * 5 + [True]  # 2.1 is the first above the best but for the last two, 2.0
    with average.swapped_in(model):
        assert torch.equal(model.weight, torch.full((1, 2), 5.0))
    with torch.no_grad():
        model.weight.fill_(8.0)
    average.update(model)
    with average.swapped_in(model):
        assert torch.equal(model.weight, torch.full((1, 2), 8.0))
    with torch.no_grad():
        model.weight.fill_(9.0)
    average.update(model)
    with average.swapped_in(model):
        assert torch.equal(model.weight, torch.full((1, 2), 8.5))
    assert torch.equal(model.weight, torch.full((1, 2), 9.0))
