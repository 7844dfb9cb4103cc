"""Hidden words: which are chosen, pairs, training and resuming, answers, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from commands import orchard
from safetensors.torch import load_file
from torch import Tensor

from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.counter_rng import uniforms
from orchard.data.masked_text import MaskedLoader
from orchard.data.masking import NOT_ASKED, Masker, Masking, word_starts
from orchard.data.text import TextSplit, encode_array
from orchard.data.text_inputs import ROLES, TextInputs
from orchard.data.tokenizers import Characters, Tokenizer
from orchard.data.train_tokenizers import train_bpe, train_unigram, train_wordpiece, train_words
from orchard.errors import OrchardError, UsageError
from orchard.inference.sampling import narrow
from orchard.models import create_model
from orchard.models.language.text_encoder import BERT
from orchard.tasks.fill_mask.gibbs import Gibbs, conditional
from orchard.tasks.fill_mask.pipeline import MaskFiller
from orchard.training.loop import Trainer
from orchard.training.state import Interrupted
from orchard.weights.golden import GOLDEN, read_golden
from orchard.weights.official import load_official

TEXT = "The cat sat on the mat. The dog ran to the sea! A bird sings in the tree. " * 12
SMALL: dict[str, Any] = {
    "architecture.width": 16,
    "architecture.depth": 1,
    "architecture.heads": 2,
    "architecture.hidden": 32,
    "batch_size": 4,
    "epochs": 8,
    "optimizer.lr": 1e-2,
    "log_every": 4,
    "text.length": 24,
    "text.vocabulary": 300,
}


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    return train_wordpiece([TEXT], 40, ROLES)  # so few that most words are of several pieces


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def run(book: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train("bert_nano", str(book), out, **SMALL)
    return out


def hide(tokenizer: Tokenizer, masking: Masking, count: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Many tokens, what is left of them and the labels."""
    ids = np.array((tokenizer.encode(TEXT) * (1 + count // 100))[:count])
    hidden, labels = Masker(tokenizer, masking)(ids, uniforms(0, 0, np.arange(count), 3))
    return ids, hidden, labels


def test_the_shares_are_as_asked_and_the_rest_is_as_it_was(pieces: Tokenizer) -> None:
    ids, hidden, labels = hide(pieces, Masking())
    asked = labels != NOT_ASKED
    assert asked.sum() == round(0.15 * len(ids))
    assert (labels[asked] == ids[asked]).all() and (hidden[~asked] == ids[~asked]).all()
    masked, kept = hidden[asked] == pieces.specials["mask"], hidden[asked] == ids[asked]
    assert masked.mean() == pytest.approx(0.8, abs=0.05) and 0.07 < kept.mean() < 0.2
    assert not set(hidden[asked][~masked]) & {pieces.specials[role] for role in ("pad", "class", "separator")}


def test_special_tokens_are_never_asked_about(pieces: Tokenizer) -> None:
    ids = np.array([pieces.specials["class"], *pieces.encode("cat"), pieces.specials["separator"]])
    for epoch in range(20):
        _, labels = Masker(pieces, Masking(share=0.9))(ids, uniforms(0, epoch, np.arange(len(ids)), 3))
        assert labels[0] == labels[-1] == NOT_ASKED and (labels != NOT_ASKED).any()


def test_whole_words_are_hidden_whole_and_grams_are_side_by_side(pieces: Tokenizer) -> None:
    ids, _, labels = hide(pieces, Masking(whole_words=True))
    asked = labels != NOT_ASKED
    goes_on = np.array([pieces.inner.id_to_token(token).startswith("##") for token in ids])  # type: ignore[attr-defined]
    assert goes_on.any() and (asked[1:] == asked[:-1])[goes_on[1:]].all()
    assert asked.mean() == pytest.approx(0.15, abs=0.02)
    asked = {n: hide(pieces, Masking(ngram=n))[2] != NOT_ASKED for n in (1, 3)}
    beside = {n: (one[1:] & one[:-1]).sum() / one.sum() for n, one in asked.items()}  # of tokens, whose next is too
    assert beside[1] < 0.25 and beside[3] > beside[1] + 0.15


@pytest.mark.parametrize("learn", [train_bpe, train_unigram, train_words])
def test_words_of_every_tokenizer_are_hidden_whole(learn: Any) -> None:
    tokenizer = learn([TEXT], 300, ROLES)
    ids, _, labels = hide(tokenizer, Masking(whole_words=True), 400)
    asked, begins = labels != NOT_ASKED, word_starts(tokenizer)[ids]
    assert begins.any() and (asked[1:] == asked[:-1])[~begins[1:]].all()
    assert 1 / 4 < begins.mean() <= 1 and (begins.all() == (learn is train_words))


def test_characters_have_no_words() -> None:
    with pytest.raises(UsageError, match=r"a tokenizer of characters has none; give text.tokenizer=wordpiece"):
        Masker(Characters.of(TEXT, "unknown", ROLES), Masking(whole_words=True))


def loader(tokenizer: Tokenizer, question: str | None, **how: Any) -> MaskedLoader:
    tokens = encode_array(tokenizer, TEXT)
    split = TextSplit("book/train", tokens, len(TEXT), len(TEXT), 1)
    inputs = TextInputs(tokenizer, 24, BERT)
    return MaskedLoader(split, inputs, Masker(tokenizer, Masking()), question, **{
        "batch_size": 64, "seed": 1, "training": True, **how
    })  # fmt: skip


def test_batches_follow_from_seed_epoch_and_index_alone(pieces: Tokenizer) -> None:
    first, again, other = (loader(pieces, "next-sentence").batch(epoch, 0) for epoch in (0, 0, 1))
    assert torch.equal(first.tokens.values, again.tokens.values) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)
    small = loader(pieces, "next-sentence", batch_size=3)
    row = next(n for n in range(len(first)) if int(first.indices[n]) == int(small.batch(0, 0).indices[0]))
    assert torch.equal(small.batch(0, 0).labels[0], first.labels[row][: small.batch(0, 0).labels.shape[1]])


def test_pairs_are_of_both_kinds_and_second_texts_are_marked(pieces: Tokenizer) -> None:
    for question in ("next-sentence", "sentence-order"):
        batch = loader(pieces, question).batch(0, 0)
        assert set(batch.pairs.tolist()) == {0, 1}
        separator = pieces.specials["separator"]
        assert ((batch.tokens.values == separator).sum(1) == 2).all()
        assert ((batch.segments == 1) <= batch.tokens.mask).all() and (batch.segments.sum(1) > 0).all()
    alone = loader(pieces, None).batch(0, 0)
    assert (alone.pairs == NOT_ASKED).all() and not alone.segments.any()


def test_an_order_is_changed_and_nothing_else(pieces: Tokenizer) -> None:
    made = loader(pieces, "sentence-order")
    made.masker = lambda ids, draws: (ids, np.full_like(ids, NOT_ASKED))  # type: ignore[assignment, return-value]
    batch = made.batch(0, 0)
    text = made.split.tokens.tolist()
    for tokens, mask, segments, pair in zip(
        batch.tokens.values, batch.tokens.mask, batch.segments, batch.pairs, strict=True
    ):
        ids = [token for token, real in zip(tokens.tolist(), mask.tolist(), strict=True) if real]
        cut = int((segments == 0)[mask].sum())
        first, second = ids[1 : cut - 1], ids[cut:-1]
        joined = first + second if pair == 0 else second + first
        assert any(text[n : n + len(joined)] == joined for n in range(len(text)))


def test_evaluation_reads_every_token_once(pieces: Tokenizer) -> None:
    made = loader(pieces, None, training=False, batch_size=5)
    made.masker = lambda ids, draws: (ids, np.full_like(ids, NOT_ASKED))  # type: ignore[assignment, return-value]
    special = {pieces.specials[role] for role in ("pad", "class", "separator")}
    read = [
        token for batch in made.batches(0) for token in batch.tokens.values.flatten().tolist() if token not in special
    ]
    assert read == made.split.tokens.tolist()


def test_too_short_a_text_is_refused(pieces: Tokenizer) -> None:
    made = loader(pieces, None)
    short = replace(made.split, tokens=made.split.tokens[:10])
    with pytest.raises(OrchardError, match=r"book/train has 10 tokens, at least 22"):
        MaskedLoader(short, made.inputs, made.masker, None, batch_size=4, seed=0, training=True)


def test_a_run_learns_answers_and_reports(run: Path, book: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.2 and metrics["test"]["perplexity"] < 50  # of 57 tokens
    assert 0 <= metrics["test"]["pair_accuracy"] <= 1
    evaluated = evaluate(run, str(book))
    assert evaluated["test"]["perplexity"] < 60
    filled = pipeline(run)("the cat sat on the [MASK].", top=3)[0]
    (top,) = filled.masks
    assert len(top) == 3 and top[0][1] >= top[1][1] > 0 and filled.best.startswith("the cat sat on the ")
    page = (run / "report.html").read_text()
    body = page[page.index("<body>") : page.index("</body>")] + "</body>"
    root = ElementTree.fromstring(body.replace("&nbsp;", " "))
    assert {"examples", "tokens"} <= {element.get("id") for element in root.iter()}
    assert len(root.findall(".//mark")) > 3


def test_the_command_answers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert orchard("predict", run, "the [MASK] sat on the <mask>", "--top", 2, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [len(top) for top in found["masks"]] == [2, 2] and "[MASK]" not in found["filled"]
    assert orchard("predict", run, "the [MASK] sat") == 0
    assert "[MASK] sat" in capsys.readouterr().out
    assert orchard("predict", run, "the cat") == 2
    assert "has no [MASK]" in capsys.readouterr().err


def test_a_run_that_was_stopped_ends_in_the_same_bits(
    run: Path, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def stop(self: Trainer, batches: Any) -> None:
        if self.state.step == 12:
            raise Interrupted("here")
        step(self, batches)

    settings = {**SMALL, "checkpoint_steps": 5, "checkpoint_minutes": 0}
    monkeypatch.setattr(Trainer, "step", stop)
    with pytest.raises(Interrupted):
        train("bert_nano", str(book), tmp_path / "run", **settings)
    monkeypatch.undo()
    train("bert_nano", str(book), tmp_path / "run", **settings)
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (run, tmp_path / "run"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_run_is_gone_on_with_by_its_own_tokenizer(run: Path, book: Path, tmp_path: Path) -> None:
    settings = {key: value for key, value in SMALL.items() if not key.startswith("architecture")}
    train("bert_nano", str(book), tmp_path / "more", start_from=str(run), **settings | {"max_steps": 2})
    both = [(folder / "model" / "text_tokenizer" / "tokenizer.json").read_text() for folder in (run, tmp_path / "more")]
    assert both[0] == both[1]


def test_a_classifier_of_texts_is_gone_on_with(book: Path, tmp_path: Path) -> None:
    """All but the head is taken over."""
    sizes = {key: value for key, value in SMALL.items() if key.startswith(("architecture", "text"))}
    table = tmp_path / "t.csv"
    table.write_text("text,label\n" + "".join(f"{TEXT[:40]} {n},{'ab'[n % 2]}\n" for n in range(40)))
    train("bert_nano", str(table), tmp_path / "first", **sizes, max_steps=2, batch_size=8)
    more = {"batch_size": 4, "text.length": 24, "max_steps": 1, "optimizer.lr": 1e-12}
    train("bert_nano", str(book), tmp_path / "more", start_from=str(tmp_path / "first"), **more)
    old, new = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "more"))
    shared = [name for name in new if not name.startswith("head.") and name in old]
    assert len(shared) > 10 and all(torch.allclose(old[name], new[name], atol=1e-6) for name in shared)


def test_wrong_settings_are_refused_in_a_line(book: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"text.length is 200, the context of bert_nano 128"):
        train("bert_nano", str(book), tmp_path / "a", **{**SMALL, "text.length": 200})
    with pytest.raises(UsageError, match=r"architecture.head is text-classification, expected fill-mask"):
        train("bert_nano", str(book), tmp_path / "b", **{**SMALL, "architecture.head": "text-classification"})


@pytest.mark.parametrize("case", ["parallel_sequential", "parallel_sequential_topk"])
def test_draws_are_from_the_conditionals_of_the_official_sampler(case: str) -> None:
    """nyu-dl/bert-gen: at the positions and with the tokens that it drew, the same inputs and logits."""
    golden = read_golden(GOLDEN / "bert_gen" / case)
    sizes = {"width": 24, "depth": 2, "heads": 3, "hidden": 40, "vocabulary": 30, "context": 24}
    model = create_model("bert_base", **sizes, pairs=False).eval()
    load_official(model, golden.state, "hf")
    kwargs = golden.meta["args"]["kwargs"]
    how = Gibbs(kwargs["max_iter"], kwargs["burnin"], kwargs["top_k"], kwargs["temperature"] or 1.0)
    inputs, chosen = golden.computed("model_inputs"), golden.computed("chosen")
    ids = inputs[0].clone()

    def logits(tokens: Tensor) -> Tensor:
        return model(tokens, torch.ones_like(tokens, dtype=torch.bool))  # type: ignore[no-any-return]

    for step, place in enumerate(golden.computed("positions").tolist()):
        with torch.no_grad():
            found = conditional(logits, ids, place, 4)
        assert torch.equal(ids, inputs[step])
        torch.testing.assert_close(found, golden.computed("logits")[step], atol=1e-5, rtol=1e-5)
        if step >= how.burn_in:
            kept = narrow(found / how.temperature, how.sampling(step)).isfinite()
            likeliest = found.argmax(-1) == chosen[step]
            assert kept.gather(1, chosen[step][:, None]).all() if how.top_k else likeliest.all()
        ids[:, place] = chosen[step]
    assert torch.equal(ids, golden.computed("final"))


def test_texts_are_drawn_by_seed(run: Path) -> None:
    filler = MaskFiller(run)
    how = Gibbs(12, 6, 5, 1.0)
    first, again, other = (filler.sample("the [MASK] [MASK] on", how, seed=seed, count=3) for seed in (1, 1, 2))
    assert first == again and first != other and len(set(first)) > 1 and "[MASK]" not in first[0]
