"""Tokenizers: nothing is lost, and GPT-2's and BERT's are those of transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.data.text_tokenizer import cut_words
from orchard.data.tokenizer_files import library_reads
from orchard.data.tokenizers import (
    LOST,
    Characters,
    Pieces,
    load_tokenizer,
    read_bpe,
    read_wordpiece,
)
from orchard.data.train_tokenizers import train_bpe, train_unigram, train_wordpiece, train_words
from orchard.errors import OrchardError, UsageError

TEXT = (
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n\n  It's the 2nd time; "
    "we'll go, they've gone.\tTabs too, naïve café, 一只俏皮的狗正跑过草地。Ω≈ç√ 😀👩‍🚀\r\n"
) * 4
MIXED = [
    "一只俏皮的狗正跑过草地",
    "Hello, wörld! GPT-2对比BERT：unaffable，2019年。",
    "  spaces\tand\nlines \u3000全角　空格  ",
    "Éclair naïve CAFÉ x" + "y" * 120,
    "狗dog狗 [MASK] 的，[UNK] ##的 don't",
    "\x00\u200b\ufffd zero",
    "",
]
any_text = st.one_of(
    st.text(max_size=40), st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", errors="replace"))
)


@pytest.fixture(scope="module")
def bpe() -> Pieces:
    return train_bpe([TEXT], 400)


BYTES, CHINESE, LETTERS = Characters("", "bytes"), Characters.chinese(), Characters.of(TEXT)
SHARED = train_bpe([TEXT], 400)


@settings(max_examples=150, deadline=None)
@given(any_text)
def test_any_text_comes_back(text: str) -> None:
    for tokenizer in (SHARED, BYTES, CHINESE):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= token < tokenizer.vocabulary for token in ids)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=30))
def test_any_ids_are_some_text(ids: list[int]) -> None:
    for tokenizer in (SHARED, BYTES, CHINESE):
        assert isinstance(tokenizer.decode(ids), str)


def test_bytes_are_utf8() -> None:
    assert BYTES.vocabulary == 256
    assert BYTES.encode("é狗") == list("é狗".encode())
    assert BYTES.decode([0xE7, 0x8B]) == LOST  # a character cut short


def test_bpe_is_learned_the_same_each_time(bpe: Pieces) -> None:
    assert train_bpe([TEXT], 400).fingerprint == bpe.fingerprint
    assert len(bpe.encode(TEXT)) < len(TEXT.encode()) / 2
    assert train_bpe([], 257).vocabulary == 257


def test_bpe_is_that_of_transformers(tmp_path: Path, bpe: Pieces) -> None:
    import transformers

    model = json.loads(bpe.inner.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    ours = read_bpe(tmp_path / "vocab.json", tmp_path / "merges.txt")
    theirs = transformers.GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    assert ours.vocabulary == len(theirs) == bpe.vocabulary
    assert ours.specials == {"end": theirs.eos_token_id}
    for text in [TEXT, *MIXED, "the end<|endoftext|>and on"]:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == bpe.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece_is_that_of_transformers(tmp_path: Path, lowercase: bool) -> None:
    import transformers

    letters = sorted(
        set("abcdefghijklmnopqrstuvwxyz0123456789GPTBERHeéöÉC" + "一只俏皮的狗正跑过草地对比年全角空格，。：！,.!-'#")
    )
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary += ["hello", "##llo", "un", "##aff", "##able", "spa", "##ces", "gpt", "bert", "world"]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    ours = read_wordpiece(path, lowercase=lowercase)
    theirs = transformers.BertTokenizer(str(path), do_lower_case=lowercase)
    assert ours.vocabulary == len(theirs) == len(vocabulary)
    assert ours.specials == {"unknown": 1, "pad": 0, "class": 2, "separator": 3, "mask": 4}
    for text in [TEXT, *MIXED]:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.encode("狗[MASK]") == [vocabulary.index("狗"), 4]


def test_characters_are_numbered_as_nanogpt_does() -> None:
    text = "hello there"
    tokenizer = Characters.of(text)
    assert tokenizer.encode(text) == [sorted(set(text)).index(character) for character in text]
    assert tokenizer.vocabulary == len(set(text)) + 1
    assert tokenizer.decode(tokenizer.encode("hé")) == "h" + LOST
    assert tokenizer.encode("é") == [tokenizer.specials["unknown"]]


def test_chinese_is_one_id_a_character() -> None:
    assert CHINESE.vocabulary == 96 + 7445 + 256 + 2
    assert len(CHINESE.encode("一只俏皮的狗正跑过草地。")) == 12
    assert len(CHINESE.encode("龘")) == 3  # beyond GB 2312: its bytes
    assert CHINESE.decode([*CHINESE.encode("草地"), CHINESE.specials["end"], CHINESE.specials["pad"]]) == "草地"


@pytest.mark.parametrize("tokenizer", [SHARED, BYTES, CHINESE, LETTERS], ids=["bpe", "bytes", "chinese", "letters"])
def test_saved_and_loaded(tokenizer: Pieces | Characters, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "model")
    loaded = load_tokenizer(tmp_path / "model")
    assert loaded.fingerprint == tokenizer.fingerprint and loaded.kind == tokenizer.kind
    assert loaded.vocabulary == tokenizer.vocabulary and loaded.specials == tokenizer.specials
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)


def test_what_the_library_saves_is_its_own_format(tmp_path: Path, bpe: Pieces) -> None:
    import transformers

    bpe.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert theirs(TEXT)["input_ids"] == bpe.encode(TEXT)


def test_what_is_wrong_is_named(tmp_path: Path, bpe: Pieces) -> None:
    with pytest.raises(OrchardError, match=r"text\.json is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(OrchardError, match=r"text\.json is damaged"):
        load_tokenizer(tmp_path)
    (tmp_path / "text.json").write_text('{"kind": "characters"}')
    with pytest.raises(OrchardError, match=r"text\.json: 'specials': field required"):
        load_tokenizer(tmp_path)
    (tmp_path / "text.json").write_text('{"kind": "bpa", "specials": {}}')
    with pytest.raises(UsageError, match="did you mean bpe"):
        load_tokenizer(tmp_path)
    (tmp_path / "text.json").write_text('{"kind": "bpe", "specials": {}}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(OrchardError, match=r"tokenizer\.json: 'pre_tokenizer': field required"):
        load_tokenizer(tmp_path)
    with pytest.raises(OrchardError, match="no token 400"):
        bpe.decode([1, 400])
    with pytest.raises(OrchardError, match="no token 256"):
        BYTES.decode([256])
    with pytest.raises(UsageError, match="need 257"):
        train_bpe([TEXT], 256)
    with pytest.raises(UsageError, match=r"vocab\.json and merges\.txt"):
        read_bpe(tmp_path / "vocab.json", tmp_path / "merges.txt")
    (tmp_path / "vocab.json").write_text("[]")
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(OrchardError, match=r"vocab\.json: 'the whole': input should be a valid dictionary"):
        read_bpe(tmp_path / "vocab.json", tmp_path / "merges.txt")
    with pytest.raises(OrchardError, match=r"has no \[UNK\]"):
        read_wordpiece(tmp_path / "merges.txt", lowercase=True)
    with pytest.raises(UsageError, match="each of them once"):
        Characters("aa", "unknown")


def test_chinese_characters_stand_for_themselves_in_a_learned_bpe() -> None:
    phrases = ["手写数字零", "手写的一", "数字二的图片"] * 40
    learned = train_bpe(phrases, 400)
    ids = learned.encode("手写的数字二")  # new as a phrase, its characters are not
    assert len(ids) == 6
    assert set(ids) <= {token for phrase in phrases for token in learned.encode(phrase)}
    assert learned.decode(ids) == "手写的数字二"


def changed(value: Any, keys: str, new: Any) -> Any:
    """A JSON value with what stands at `keys` (dotted; numbers are places in lists) replaced."""
    copy = json.loads(json.dumps(value))
    *way, last = (int(key) if key.isdigit() else key for key in keys.split("."))
    inside = copy
    for key in way:
        inside = inside[key]
    inside[last] = new
    return copy


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("padding", {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_id": 0, "pad_token": "x"}),
        ("truncation", {"max_length": -1}),
        ("post_processor", {"type": "ByteLevel"}),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", "(a+)+$"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}),
        ("decoder", {"type": "Sequence", "decoders": []}),
        ("model.vocab.zz", 2**31),
        ("model.vocab.!", 2**31),
        ("model.vocab.!", -1),
        ("model.vocab.!", 2),
        ("model.vocab.!", "1"),
        ("model.vocab", None),
        ("model.merges", [["no", "where"]]),
        ("model.merges", [["a"]]),
        ("model.merges", [1]),
        ("model.type", "WordPiece"),
        ("model.dropout", 2.0),
        ("added_tokens", [{"id": 2**32, "content": "x"}]),
        ("added_tokens.0.id", 3),
        ("added_tokens.0.special", 7),
        ("version", []),
    ],
)
def test_a_changed_tokenizer_is_one_line(tmp_path: Path, bpe: Pieces, keys: str, value: object) -> None:
    """Some of these took 24 GB, some had no end, and some ended the process inside the library."""
    bpe.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), keys, value)))
    with pytest.raises(OrchardError, match=r"tokenizer\.json") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    ["[]", "null", '{"kind": 1, "specials": {}}', '{"kind": "bpe", "specials": {"end": 1}}', "[" * 10**5,
     '{"kind": "bpe", "specials": {"end": "gone"}}', '{"kind": "bpe", "specials": []}',
     '{"kind": "characters", "specials": [], "fallback": "x", "characters": "a"}',
     '{"kind": "characters", "specials": [], "fallback": "bytes", "characters": "aa"}'],
)  # fmt: skip
def test_a_changed_text_json_is_one_line(tmp_path: Path, bpe: Pieces, text: str) -> None:
    bpe.save(tmp_path)
    (tmp_path / "text.json").write_text(text)
    with pytest.raises(OrchardError, match=r"text\.json"):
        load_tokenizer(tmp_path)


def test_vocabularies_with_gaps_and_twins_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 2147483647}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(OrchardError, match=r"vocab\.json has 2 tokens and none with the id 1; expected ids from 0 up"):
        read_bpe(tmp_path / "vocab.json", tmp_path / "merges.txt")
    (tmp_path / "vocab.txt").write_text("[UNK]\na\na\n")
    with pytest.raises(OrchardError, match=r"vocab\.txt, line 3: 'a' is there twice"):
        read_wordpiece(tmp_path / "vocab.txt", lowercase=True)


def test_what_a_library_raises_below_exception_is_an_error() -> None:
    class PanicException(BaseException):
        """As pyo3's."""

    with (
        pytest.raises(OrchardError, match="x is no tokenizer: index out of bounds"),
        library_reads("x is no tokenizer"),
    ):
        raise PanicException("index out of bounds")
    with pytest.raises(KeyboardInterrupt), library_reads("x"):
        raise KeyboardInterrupt


def test_half_a_character_is_refused(bpe: Pieces) -> None:
    for tokenizer in (bpe, BYTES):
        with pytest.raises(OrchardError, match="character 2 of the text"):
            tokenizer.encode("a\udcff")


def test_words_without_end_are_learned_from_in_parts() -> None:
    """The time goes with the square of a word's length: without parts these would take minutes."""
    letters = np.random.default_rng(0).integers(0, 4, 60_000)
    text = "".join("ACGT"[n] for n in letters)
    learned = train_bpe([text, " " * 60_000], 400)
    assert learned.vocabulary == 400 and learned.decode(learned.encode(text)) == text
    saved = json.loads(learned.inner.to_str())
    assert "128" not in json.dumps(saved["pre_tokenizer"])  # words are read whole


def test_what_is_cut_is_counted() -> None:
    assert cut_words("captions", [3, 5, 9], 4, "text.length") == [
        "2 of 3 captions are longer than 4 tokens and are cut; the longest has 9 (--set text.length=9 reads them whole)"
    ]
    assert cut_words("captions", [3, 4], 4) == []


ROLES = ("pad", "class", "separator", "mask")
REVIEWS = ["Das Café war naïve!", "the film was good, the film was bad", "电影很好看"] * 3


@pytest.mark.parametrize("learn", [train_wordpiece, train_unigram, train_words])
def test_learned_tokenizers_have_marks_and_are_kept(learn: Any, tmp_path: Path) -> None:
    tokenizer = learn(REVIEWS, 300, ROLES)
    assert tokenizer.specials.keys() == {"unknown", *ROLES}
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint and again.specials == tokenizer.specials
    for text in REVIEWS:
        ids = again.encode(text)
        assert ids == tokenizer.encode(text) and tokenizer.specials["unknown"] not in ids
    assert tokenizer.specials["unknown"] in tokenizer.encode("☃☃")
    assert "film" in tokenizer.decode(tokenizer.encode("the film"))


def test_a_piece_with_a_wrong_unknown_one_is_told(tmp_path: Path) -> None:
    train_unigram(REVIEWS, 300, ROLES).save(tmp_path)
    file = tmp_path / "tokenizer.json"
    table = json.loads(file.read_text())
    file.write_text(json.dumps(table | {"model": table["model"] | {"unk_id": 10**6}}))
    with pytest.raises(OrchardError, match="unknown one with the id 1000000"):
        load_tokenizer(tmp_path)
