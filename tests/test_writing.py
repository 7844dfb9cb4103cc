"""Going on with text: alone or in company, at once or piece by piece, in view or beyond it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from commands import orchard

from orchard.data.tokenizers import Characters, Tokenizer
from orchard.data.train_tokenizers import train_bpe
from orchard.errors import OrchardError, UsageError
from orchard.inference.detokenizer import StreamingDetokenizer
from orchard.inference.loading import load
from orchard.inference.sampling import Sampling
from orchard.models import create_model
from orchard.tasks.text_generation.pipeline import TextGenerator
from orchard.weights.portable import Portable, architecture_of, save_portable

CONTEXT = 24
CORPUS = "the cat sat on the mat; 猫在垫子上 \N{CAT FACE} and the dog ran. " * 3
BYTES = Characters("", "bytes", ("end",))
LETTERS = Characters.of("abcdefghij ", "unknown")
GREEDY = Sampling(temperature=0)
PROMPTS = ["the cat", "a", "the dog and the cat sat on", "mat; " * 20]


def write_model(folder: Path, tokenizer: Tokenizer) -> Path:
    """An untrained model that is sure of itself, and its tokenizer."""
    torch.manual_seed(0)
    model = create_model(
        "gpt2_nano", width=16, depth=2, heads=2, context=CONTEXT, vocabulary=tokenizer.vocabulary
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    save_portable(folder, model, Portable("gpt2_nano", architecture_of(model), "text-generation"))
    tokenizer.save(folder / "text_tokenizer")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bytes"), BYTES)


@pytest.fixture(scope="module")
def writer(folder: Path) -> TextGenerator:
    return TextGenerator(folder, precision="fp32")


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=20, top_p=0.9, repetition_penalty=1.2)])
def test_a_prompt_gets_in_company_what_it_gets_alone(writer: TextGenerator, sampling: Sampling) -> None:
    """Of other lengths than its own, and well beyond the context."""
    alone = [writer(prompt, length=60, sampling=sampling, seed=5)[0] for prompt in PROMPTS]
    assert writer(PROMPTS, length=60, sampling=sampling, seed=5) == alone
    several = writer(PROMPTS[:2], length=10, sampling=sampling, seed=5, count=3)
    assert [several[0], several[3]] == writer(PROMPTS[:2], length=10, sampling=sampling, seed=5)


def test_greedy_takes_the_most_likely_of_all_that_is_in_view(writer: TextGenerator) -> None:
    ids = BYTES.encode("the cat")
    length = CONTEXT - len(ids)
    for _ in range(length):
        with torch.no_grad():
            logits = writer.model(torch.tensor([ids]))[0, -1]
        if int(logits.argmax()) == writer.end:
            break
        ids.append(int(logits.argmax()))
    assert writer("the cat", length=length, sampling=GREEDY) == [BYTES.decode(ids[7:])]


def test_beyond_the_context_half_of_it_is_read_again(folder: Path) -> None:
    writer = TextGenerator(write_model(folder.parent / "letters", LETTERS), precision="fp32")
    ids, begin = LETTERS.encode("abc"), 0
    for _ in range(50):
        if len(ids) - begin >= CONTEXT:
            begin = len(ids) - CONTEXT // 2
        with torch.no_grad():
            logits = writer.model(torch.tensor([ids[begin:]]))[0, -1]
        logits[LETTERS.specials["unknown"]] = float("-inf")
        ids.append(int(logits.argmax()))
    assert writer("abc", length=50, sampling=GREEDY) == [LETTERS.decode(ids[3:])]


def test_the_seed_and_the_candidate_decide(writer: TextGenerator) -> None:
    wild = Sampling(temperature=1.5)
    first = writer("the", length=20, sampling=wild, seed=1, count=2)
    assert first == writer("the", length=20, sampling=wild, seed=1, count=2)
    assert first[0] != first[1]
    assert first[0] != writer("the", length=20, sampling=wild, seed=2)[0]


@pytest.mark.parametrize("tokenizer", [BYTES, train_bpe([CORPUS], 280)], ids=["bytes", "bpe"])
def test_no_piece_cuts_a_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(CORPUS)
    detokenizer = StreamingDetokenizer(tokenizer, ids[:5])
    pieces = [detokenizer.add(token) for token in ids[5:]] + [detokenizer.rest()]
    assert "".join(pieces) == tokenizer.decode(ids)[len(tokenizer.decode(ids[:5])) :]
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_text_that_ends_in_the_middle_of_a_character_says_so() -> None:
    detokenizer = StreamingDetokenizer(BYTES, ())
    assert [detokenizer.add(byte) for byte in "a猫".encode()[:3]] == ["a", "", ""]
    assert detokenizer.rest() == "\ufffd"
    assert detokenizer.rest() == ""


def test_a_text_ends_before_a_stop_word_and_none_of_it_is_said_early() -> None:
    detokenizer = StreamingDetokenizer(BYTES, (), ["END.", "###"])
    pieces = [detokenizer.add(byte) for byte in b"one EN two END. three"[:15]]
    assert "".join(pieces) == "one EN two "
    assert detokenizer.ended
    assert all(not piece.endswith("E") for piece in pieces)
    open_end = StreamingDetokenizer(BYTES, (), ["END."])
    assert "".join([open_end.add(byte) for byte in b"the EN"] + [open_end.rest()]) == "the EN"


def test_stop_words_while_writing(writer: TextGenerator) -> None:
    whole = writer("the cat", length=40, sampling=GREEDY)[0]
    word = whole[4:6]
    assert writer("the cat", length=40, sampling=GREEDY, stop=[word]) == [whole[: whole.index(word)]]
    with pytest.raises(UsageError, match="a stop word is empty"):
        writer("the cat", length=1, sampling=GREEDY, stop=[""])


def test_the_end_of_a_text_ends_a_row_and_not_its_neighbour(tmp_path: Path) -> None:
    writer = TextGenerator(write_model(tmp_path / "letters", LETTERS), precision="fp32")
    wild = Sampling(temperature=4.0)
    both = writer(["abc", "hij"], length=30, sampling=wild)
    last = next(letter for letter in both[0] if both[0].index(letter) != both[1].find(letter))
    writer.end = LETTERS.encode(last)[0]
    assert writer(["abc", "hij"], length=30, sampling=wild) == [text.partition(last)[0] for text in both]


def test_an_empty_prompt_begins_a_text_where_the_model_knows_how(writer: TextGenerator, tmp_path: Path) -> None:
    assert writer("", length=5, sampling=GREEDY)
    with pytest.raises(UsageError, match="no sign for where a text begins"):
        TextGenerator(write_model(tmp_path / "letters", LETTERS))("", length=5, sampling=GREEDY)


def test_perplexity_is_the_models_own(writer: TextGenerator) -> None:
    ids = BYTES.encode(CORPUS[:CONTEXT])
    with torch.no_grad():
        loss = F.cross_entropy(writer.model(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]))
    assert writer.perplexity(CORPUS[:CONTEXT][: len(BYTES.decode(ids))]) == pytest.approx(float(loss.exp()), rel=1e-4)
    long = BYTES.encode(CORPUS)
    found = writer.token_nll(long)
    assert found.shape == (len(long) - 1,)
    place = 2 * CONTEXT  # each after at least half a context
    with torch.no_grad():
        logits = writer.model(torch.tensor([long[place - CONTEXT // 2 : place]]))[0, -1]
    assert found.isfinite().all() and logits.isfinite().all()
    with pytest.raises(UsageError, match="needs two"):
        writer.perplexity("a")


def test_what_a_person_should_know_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    writer = TextGenerator(write_model(tmp_path / "letters", LETTERS), say=said.append)
    writer("abc?!", length=1, sampling=GREEDY)
    writer("abc" * 20, length=1, sampling=GREEDY)
    assert said[0] == "this model has never seen '!', '?'"
    assert "60 tokens is longer than what the model remembers" in said[1]


def test_models_that_write_no_text_are_refused(folder: Path, tmp_path: Path) -> None:
    loaded = load(folder)
    with pytest.raises(UsageError, match="a model for image-text; it writes no text"):
        TextGenerator(type(loaded)(**{**vars(loaded), "task": "image-text"}))
    with pytest.raises(OrchardError, match="has no text_tokenizer"):
        TextGenerator(type(loaded)(**{**vars(loaded), "folder": tmp_path}))
    Characters("", "bytes", ("end", "pad", "more")).save(tmp_path / "text_tokenizer")
    with pytest.raises(OrchardError, match="has 259 tokens, the model beside it 257"):
        TextGenerator(type(loaded)(**{**vars(loaded), "folder": tmp_path}))


def test_the_command_prints_one_text_several_and_json(folder: Path, writer: TextGenerator, capsys) -> None:
    one = writer("the cat", length=8, sampling=GREEDY)[0]
    wishes = ("--length", 8, "--temperature", 0)
    assert orchard("generate", folder, "the cat", *wishes) == 0
    assert capsys.readouterr().out == f"the cat{one}\n"
    assert orchard("generate", folder, "the cat", "a", "--count", 2, "--json", *wishes) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["prompt"] for answer in answers] == ["the cat", "the cat", "a", "a"]
    assert answers[0] == answers[1] == {"prompt": "the cat", "text": one}
    assert orchard("generate", folder, "the cat", "a", *wishes) == 0
    assert capsys.readouterr().out.startswith(f"the cat{one}\n---\na")
