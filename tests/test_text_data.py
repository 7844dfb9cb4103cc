"""Text: what is read, how it is cut, and batches that come out the same wherever one starts."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orchard.data.batches import TokenBatch
from orchard.data.contracts import DataSettings
from orchard.data.settings import TextSource
from orchard.data.text import TextSplit, encode_array, open_text, pieces, tokenize
from orchard.data.text_loader import TextLoader
from orchard.data.tokenizers import Characters
from orchard.data.train_tokenizers import train_bpe
from orchard.errors import OrchardError, UsageError
from orchard.tasks.text_generation.objective import TextGeneration, TokenNLL, measure

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETTINGS = DataSettings()
BYTES = Characters("", "bytes")


def split_of(length: int) -> TextSplit:
    return TextSplit("numbers/train", np.arange(length, dtype=np.uint16), length, length, length)


def loader(length: int, context: int, batch_size: int, **more) -> TextLoader:
    return TextLoader(split_of(length), context, batch_size, **{"training": True, "seed": 3, **more})


# Reading


def test_shakespeare(tmp_path: Path) -> None:
    (tmp_path / "input.txt.gz").write_bytes(gzip.compress(b"0123456789" * 20))
    texts = open_text(f"shakespeare:{tmp_path}", SETTINGS)
    assert texts.name == "shakespeare" and texts.format == "named set"
    assert {name: len(documents[0]) for name, documents in texts.splits.items()} == {"train": 180, "validation": 20}
    data = tokenize(texts, Characters.of(texts.splits["train"][0]))
    assert data.splits["train"].tokens.tolist() == [n % 10 for n in range(180)]
    assert data.splits["train"].tokens.dtype == np.uint16
    assert data.splits["validation"].characters == data.splits["validation"].size == 20


def test_shakespeare_itself() -> None:
    folder = SHARED / "shakespeare"
    if not folder.is_dir():
        pytest.skip("tiny Shakespeare is not here")
    texts = open_text(f"shakespeare:{folder}", SETTINGS)
    train = texts.splits["train"][0]
    assert len(train) == 1003854 and len(texts.splits["validation"][0]) == 111540
    data = tokenize(texts, Characters.of(train))
    assert data.tokenizer.vocabulary == 65 + 1 and len(data.splits["train"]) == 1003854


def test_wikitext(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt.gz").write_bytes(gzip.compress(f" = {name} = \n".encode()))
    texts = open_text("wikitext-2", DataSettings(root=str(tmp_path)))
    assert texts.splits == {
        s: (f" = {n} = \n",) for s, n in (("train", "train"), ("validation", "valid"), ("test", "test"))
    }
    (tmp_path / "valid.txt.gz").unlink()
    with pytest.raises(OrchardError, match=r"valid\.txt is missing"):
        open_text(f"wikitext-2:{tmp_path}", SETTINGS)
    with pytest.raises(UsageError, match="wikitext-2 needs a folder"):
        open_text("wikitext-2", SETTINGS)


def test_a_file_is_cut_in_three(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text("一二三四五六七八九十" * 10, encoding="utf-8")
    texts = open_text(str(path), SETTINGS)
    assert {name: len("".join(d)) for name, d in texts.splits.items()} == {"train": 80, "validation": 10, "test": 10}
    assert "".join("".join(documents) for documents in texts.splits.values()) == path.read_text(encoding="utf-8")
    assert tokenize(texts, BYTES).splits["test"].size == 30
    path.write_text("一二三四五六七八九九" * 10, encoding="utf-8")
    assert open_text(str(path), SETTINGS).fingerprint != texts.fingerprint


def test_a_folder_of_documents(tmp_path: Path) -> None:
    for name, length in (("b", 30), ("a", 50), ("c/d", 20)):
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name[-1] * length)
    texts = open_text(str(tmp_path), SETTINGS)
    held = ("a" * 5, "b" * 3, "d" * 2)  # each document is cut by itself, so that one more moves nothing
    assert texts.splits == {"train": ("a" * 40, "b" * 24, "d" * 16), "validation": held, "test": held}
    data = tokenize(texts, Characters("abd", "unknown", specials=("end",)))
    tokens = data.splits["train"].tokens.tolist()
    assert tokens == [0] * 40 + [4] + [1] * 24 + [4] + [2] * 16 + [4]  # every document has an end


def test_a_folder_split_by_names(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.txt").write_text(name * 10)
    texts = open_text(str(tmp_path), SETTINGS)
    assert texts.splits == {"train": ("train" * 10,), "validation": ("val" * 10,), "test": ("test" * 10,)}
    (tmp_path / "val.txt").unlink()
    texts = open_text(str(tmp_path), SETTINGS)
    assert texts.splits["train"] == ("train" * 9,) and texts.splits["validation"] == ("train",)
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(OrchardError, match=r"readme\.txt lies beside train\.txt"):
        open_text(str(tmp_path), SETTINGS)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    bad = {"gbk.txt": "一只狗".encode("gb18030"), "empty.txt": b" \n", "cut.txt.gz": gzip.compress(b"text" * 99)[:-9]}
    words = {"gbk.txt": "not UTF-8 .byte 4 is 0xb9", "empty.txt": "is empty", "cut.txt.gz": "is damaged"}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OrchardError, match=rf"{name}.*{words[name]}"):
            open_text(str(tmp_path / name), SETTINGS)
    (tmp_path / "none").mkdir()
    (tmp_path / "table.csv").write_text("a,b")
    (tmp_path / "book.pdf").write_text("a")
    for source, expected in (
        (str(tmp_path / "none"), "has no text"),
        (str(tmp_path / "table.csv"), "no one column named text or content"),
        (str(tmp_path / "book.pdf"), r"is no text; expected a \.txt or \.md file"),
        ("shakespear", "did you mean shakespeare"),
        (str(tmp_path / "nowhere.txt"), "there is no file or folder"),
    ):
        with pytest.raises(UsageError, match=expected):
            open_text(source, SETTINGS)
    with pytest.raises(OrchardError, match=r"numbers/train has 8 tokens, at least 9 are needed for a context of 8"):
        loader(8, 8, 2)
    with pytest.raises(UsageError, match="equally among 2 processes"):
        loader(100, 8, 3, world=2)


def test_a_mark_in_front_of_the_text_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "windows.txt").write_bytes("text\r\n".encode("utf-8-sig"))
    texts = open_text(str(tmp_path / "windows.txt"), DataSettings(test_fraction=0.0))
    assert "".join("".join(documents) for documents in texts.splits.values()) == "text\r\n"


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab \n\t\r'.1狗", max_size=80), st.integers(1, 9))
def test_encoded_in_pieces_is_the_same_as_at_once(text: str, size: int) -> None:
    parts = list(pieces(text, size))
    assert "".join(parts) == text
    for tokenizer in (BPE, BYTES):
        assert [token for part in parts for token in tokenizer.encode(part)] == tokenizer.encode(text)


BPE = train_bpe(["ab a b\n\nab 狗 a'b\n  ab.\n" * 20], 280)


def test_large_vocabularies_need_wider_numbers() -> None:
    wide = Characters([chr(n) for n in range(0x4E00, 0x4E00 + 70000) if not 0xD800 <= n < 0xE000], "unknown")
    assert encode_array(wide, "一").dtype == np.uint32 and encode_array(BYTES, "一").dtype == np.uint16


# Batches


@settings(max_examples=60, deadline=None)
@given(length=st.integers(9, 200), batch_size=st.integers(1, 9), epoch=st.integers(0, 50))
def test_an_epoch_of_training_has_no_token_twice(length: int, batch_size: int, epoch: int) -> None:
    context = 8
    training = loader(length, context, batch_size)
    batches = list(training.batches(epoch))
    assert len(batches) == len(training) >= 1
    rows = torch.cat([batch.tokens for batch in batches])
    assert torch.equal(rows - rows[:, :1], torch.arange(context + 1).expand_as(rows))  # each a window of the text
    assert torch.equal(rows[:, 0], torch.cat([batch.indices for batch in batches])) and rows.max() < length
    inputs = rows[:, :-1].flatten()
    assert len(inputs.unique()) == len(inputs)
    assert all(batch.weights.all() for batch in batches)


def test_every_epoch_is_another_and_always_the_same() -> None:
    training = loader(1000, 16, 4)
    epochs = [torch.cat([batch.indices for batch in training.batches(epoch)]) for epoch in range(6)]
    assert len({tuple(starts.tolist()) for starts in epochs}) == 6
    assert len({int(starts[0]) % 16 for starts in epochs}) > 2  # the offset too
    again = [batch.tokens for batch in loader(1000, 16, 4).batches(3, start=5)]
    whole = [batch.tokens for batch in training.batches(3)]
    assert all(torch.equal(a, b) for a, b in zip(again, whole[5:], strict=True))
    assert not torch.equal(whole[0], next(loader(1000, 16, 4, seed=4).batches(3)).tokens)


def test_processes_share_the_batch_that_one_would_see() -> None:
    alone = loader(1000, 16, 4)
    pair = [loader(1000, 16, 4, rank=rank, world=2) for rank in (0, 1)]
    for whole, *parts in zip(alone.batches(1), *(one.batches(1) for one in pair), strict=True):
        assert torch.equal(whole.tokens, torch.cat([part.tokens for part in parts]))


@settings(max_examples=60, deadline=None)
@given(length=st.integers(2, 100), batch_size=st.integers(1, 5), world=st.integers(1, 3))
def test_evaluation_asks_for_every_token_once_in_order(length: int, batch_size: int, world: int) -> None:
    asked: list[int] = []
    for rank in range(world):
        one = loader(length, 8, batch_size, training=False, rank=rank, world=world)
        batches = list(one.batches(0))
        assert len(batches) == len(one)
        for batch in batches:
            assert batch.inputs.shape == batch.targets.shape == batch.weights.shape
            asked += batch.targets[batch.weights.bool()].tolist()
    assert asked == list(range(1, length))


def test_batches_in_parts() -> None:
    batch = next(loader(1000, 16, 6).batches(0))
    parts = batch.parts(4)
    assert [len(part) for part in parts] == [2, 2, 2] and len(batch) == 6
    assert torch.equal(torch.cat([part.tokens for part in parts]), batch.tokens)
    assert batch.to("cpu").tokens.dtype == torch.int64 and batch.weights.dtype == torch.float32


# The task


class Uniform(nn.Module):
    """Finds every one of eight tokens equally likely."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, 8)


def test_figures_of_a_model_that_knows_nothing() -> None:
    split = TextSplit("dice/test", np.arange(101, dtype=np.uint16) % 8, 50, 200, 10)
    batches = TextLoader(split, 16, 3, training=False, seed=0).batches(0)
    task = TextGeneration()
    surprise = measure(task, Uniform(), batches)
    assert surprise.tokens == 100
    figures = task.compute_metrics(surprise, characters=split.characters, size=split.size, words=split.words)
    assert figures["loss"] == pytest.approx(math.log(8)) and figures["perplexity"] == pytest.approx(8)
    assert figures["bits_per_character"] == pytest.approx(300 / 50)
    assert figures["bits_per_byte"] == pytest.approx(300 / 200)
    assert figures["word_perplexity"] == pytest.approx(8**10, rel=1e-4)
    assert "word_perplexity" not in task.compute_metrics(
        surprise, characters=50, size=200, words=2
    )  # no spaces, as in Chinese
    assert TokenNLL(1.0, 2) + TokenNLL(3.0, 4) == TokenNLL(4.0, 6)


def test_padding_costs_nothing() -> None:
    tokens = torch.tensor([[0, 1, 2, 3], [4, 5, 0, 0]])
    weights = torch.tensor([[1.0, 1, 1], [1, 0, 0]])

    class Sure(nn.Module):
        """Certain that the next token is one more."""

        def forward(self, tokens: Tensor) -> Tensor:
            return 50.0 * nn.functional.one_hot((tokens + 1) % 8, 8).float()

    batch = TokenBatch(tokens, weights, torch.zeros(2, dtype=torch.int64))
    loss, _ = TextGeneration().loss(Sure(), batch)
    nats = TextGeneration().nats(Sure(), batch)
    assert loss.item() == pytest.approx(0, abs=1e-6) and nats[1, 1] > 40
    (phase,) = TextGeneration().phases
    assert phase.loss(Sure(), TokenBatch(tokens, weights, tokens[:, 0]), 0)[0].item() == pytest.approx(0, abs=1e-6)


LINES = [f"document {number}, of its own" for number in range(60)]
TABLES = {
    "a.jsonl": "".join(json.dumps({"id": n, "content": line}) + "\n" for n, line in enumerate(LINES)),
    "a.csv": "id,Text\n" + "".join(f'{n},"{line}"\n' for n, line in enumerate(LINES)),
    "a.tsv": "id\tbody\n" + "".join(f"{n}\t{line}\n" for n, line in enumerate(LINES)),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_a_document_in_every_row(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(TABLES[name])
    before = open_text(str(path), SETTINGS).splits
    assert sorted(sum(before.values(), ())) == sorted(LINES) and all(before.values())
    path.write_text(TABLES[name].replace("document 7,", "another one"))
    after = open_text(str(path), SETTINGS).splits
    assert all({*after[split]} - {"another one of its own"} == {*before[split]} - {LINES[7]} for split in before)
    (tmp_path / "b.txt").write_text("a text " * 20)
    texts = open_text(str(tmp_path), SETTINGS)  # texts before tables
    assert texts.splits["test"] == (("a text " * 20)[-14:],)
    assert [problem.key for problem in texts.problems] == [f"*{path.suffix}"]


def test_columns_and_patterns_by_name(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("print(1)\n" * 30)
    (tmp_path / "src" / "a.pyc").write_bytes(b"\xff")
    (tmp_path / "README.md").write_text("# words\n" * 30)
    source = TextSource(source="", pattern="*.py")
    assert open_text(str(tmp_path), source).splits["train"][0].startswith("print(1)")
    assert open_text(str(tmp_path / "src" / "a.py"), source).format == "text file"
    assert open_text(str(tmp_path), SETTINGS).splits["train"][0].startswith("# words")
    (tmp_path / "t.csv").write_text("id,Review\n" + "".join(f"{n},it is {n}\n" for n in range(9)))
    with pytest.raises(
        UsageError, match=r"there is id, review\nsay which holds the text with --set data\.columns\.text"
    ):
        open_text(str(tmp_path / "t.csv"), SETTINGS)
    for column in ("review", "Review", 2):
        named = TextSource.model_validate({"source": "", "columns": {"text": column}})
        assert sum(map(len, open_text(str(tmp_path / "t.csv"), named).splits.values())) == 9
    (tmp_path / "t.csv").write_text("id,text\n1,one\n2,\n3,three\n4,four\n")
    with pytest.raises(OrchardError, match="line 3: no text"):
        open_text(str(tmp_path / "t.csv"), SETTINGS)
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"text": ')
    with pytest.raises(OrchardError, match="line 2 is no JSON"):
        open_text(str(tmp_path / "t.jsonl"), SETTINGS)


def test_folders_may_be_the_splits(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "dev/a", "test/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_text(name)
    assert open_text(str(tmp_path), SETTINGS).splits == {
        "train": ("train/a", "train/b"), "validation": ("dev/a",), "test": ("test/a",)
    }  # fmt: skip
