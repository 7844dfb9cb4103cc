"""Text to token ids and back: byte-level BPE, characters (or bytes), and BERT's WordPiece.

A tokenizer is saved as JSON that opens alone: `text.json` says its kind and its special tokens, and where the
`tokenizers` library does the work, `tokenizer.json` is that library's own file, which other programs read too.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from orchard.data.tokenizer_files import (
    MODELS,
    check_library_file,
    check_unicode,
    check_vocabulary,
    library_reads,
    read_about,
)
from orchard.errors import OrchardError, UsageError, unknown
from orchard.files import read_json

END = "<|endoftext|>"  # what GPT-2 calls the end of a text
BERT_SPECIALS = {"unknown": "[UNK]", "pad": "[PAD]", "class": "[CLS]", "separator": "[SEP]", "mask": "[MASK]"}
ROBERTA_SPECIALS = {"class": "<s>", "pad": "<pad>", "separator": "</s>", "unknown": "<unk>", "mask": "<mask>"}
LOST = "\ufffd"  # stands in a decoded text for what no character was
Fallback = Literal["unknown", "bytes"]


class Tokenizer(ABC):
    """Text to ids in 0 .. vocabulary - 1, and ids to text."""

    kind: str  # "characters", "bpe", "wordpiece", "unigram", "words", "whitespace"
    vocabulary: int
    specials: Mapping[str, int]  # ids that are no text, by role: "end" of a text, "pad", "unknown", "mask", ...

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text, no special ones added at its ends."""

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of every text, as `encode` gives them."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special ones say nothing. Raises OrchardError for an id beyond the vocabulary."""

    @abstractmethod
    def _files(self) -> dict[str, Any]:
        """What is saved: the content of each file by its name."""

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, which is made where it does not exist."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in self._files().items():
            (Path(folder) / name).write_text(_json(content), encoding="utf-8")

    @property
    def fingerprint(self) -> str:
        """sha256 over what is saved: equal tokenizers, equal fingerprints."""
        return hashlib.sha256(_json(self._files()).encode()).hexdigest()

    def _check(self, ids: Sequence[int]) -> None:
        for token in ids:
            if not 0 <= token < self.vocabulary:
                raise OrchardError(f"there is no token {token}; ids of this tokenizer are 0 to {self.vocabulary - 1}")


class Characters(Tokenizer):
    """One id per character; others become one unknown id, or the ids of their UTF-8 bytes.

    Ids: the characters in order, then "unknown" or 256 bytes, then `specials`. Without characters and with bytes it
    reads bytes. With bytes, any text comes back as it was.
    """

    kind = "characters"

    def __init__(self, characters: Sequence[str], fallback: Fallback, specials: Sequence[str] = ()):
        if len(set(characters)) != len(characters) or any(len(one) != 1 for one in characters):
            raise UsageError("a character tokenizer needs single characters, each of them once")
        self.characters, self.fallback, self.roles = "".join(characters), fallback, tuple(specials)
        known = len(self.characters)
        first = known + (256 if fallback == "bytes" else 1)
        self.specials = {role: first + n for n, role in enumerate(specials)}
        if fallback == "unknown":
            self.specials["unknown"] = known
        self.vocabulary = first + len(specials)
        self._ids = {character: n for n, character in enumerate(self.characters)}

    @classmethod
    def of(cls, text: str, fallback: Fallback = "unknown", specials: Sequence[str] = ()) -> Characters:
        """The characters that a text consists of, in the order of Unicode."""
        return cls(sorted(set(text)), fallback, specials)

    @classmethod
    def chinese(cls, specials: Sequence[str] = ("end", "pad")) -> Characters:
        """ASCII and the 7,445 characters of GB 2312, the rest by bytes: Chinese without any file.

        Bytes alone would cover any text too, at three tokens for a character, which triples the length of a prompt and
        the time of a caption; all of Unicode's ideographs would be a table of which most rows never learn. GB 2312 is
        nearly all of what modern text in simplified characters consists of, and Python knows it.
        """
        codes = (bytes((row, cell)) for row in range(0xA1, 0xF8) for cell in range(0xA1, 0xFF))
        common = "".join(code.decode("gb2312", errors="ignore") for code in codes)
        ascii_text = "\n" + "".join(map(chr, range(0x20, 0x7F)))
        return cls(sorted(set(ascii_text + common)), "bytes", specials)

    def encode(self, text: str) -> list[int]:
        known, ids = len(self.characters), self._ids
        if self.fallback == "unknown":
            return [ids.get(character, known) for character in text]
        found: list[int] = []
        check_unicode(text)
        for character in text:
            if character in ids:
                found.append(ids[character])
            else:
                found += [known + byte for byte in character.encode()]
        return found

    def decode(self, ids: Iterable[int]) -> str:
        tokens = [int(token) for token in ids]
        self._check(tokens)
        known = len(self.characters)
        text, loose = [], bytearray()  # bytes wait until the character that they make is whole
        for token in tokens:
            if self.fallback == "bytes" and known <= token < known + 256:
                loose.append(token - known)
                continue
            text.append(loose.decode(errors="replace"))
            loose.clear()
            if token < known:
                text.append(self.characters[token])
            elif token == self.specials.get("unknown"):
                text.append(LOST)
        return "".join(text) + loose.decode(errors="replace")

    def _files(self) -> dict[str, Any]:
        about = {"kind": self.kind, "fallback": self.fallback, "specials": list(self.roles)}
        return {"text.json": about | {"characters": self.characters}}


class Pieces(Tokenizer):
    """A tokenizer of the `tokenizers` library. `roles` names its special tokens, which it also reads in a text."""

    def __init__(self, kind: str, inner: tokenizers.Tokenizer, roles: Mapping[str, str]):
        self.kind, self.inner, self.roles = kind, inner, dict(roles)
        inner.add_special_tokens(list(roles.values()))  # those in the vocabulary keep their ids
        ids = inner.get_vocab(with_added_tokens=True)
        self.specials = {role: ids[token] for role, token in roles.items()}
        self.vocabulary = len(ids)

    def encode(self, text: str) -> list[int]:
        check_unicode(text)
        return self.inner.encode_batch_fast([text], add_special_tokens=False)[0].ids  # without places in the text

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """In threads."""
        for text in texts:
            check_unicode(text)
        return [one.ids for one in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        tokens = [int(token) for token in ids]
        self._check(tokens)
        return self.inner.decode(tokens, skip_special_tokens=True)

    def _files(self) -> dict[str, Any]:
        return {
            "text.json": {"kind": self.kind, "specials": self.roles},
            "tokenizer.json": json.loads(self.inner.to_str()),
        }


def read_bpe(vocabulary: str | Path, merges: str | Path) -> Pieces:
    """GPT-2's two files, `vocab.json` and `merges.txt` (OpenAI: `encoder.json` and `vocab.bpe`)."""
    for path in (vocabulary, merges):
        if not Path(path).is_file():
            raise UsageError(f"there is no file '{path}'; byte-level BPE needs vocab.json and merges.txt")
    check_vocabulary(Path(vocabulary))
    with library_reads(f"{vocabulary} and {merges} are no byte-level BPE"):
        inner = byte_level(models.BPE.from_file(str(vocabulary), str(merges)))
    roles = {"end": END, **ROBERTA_SPECIALS}  # GPT-2 has the first, RoBERTa and BART the others
    return Pieces("bpe", inner, {role: one for role, one in roles.items() if inner.token_to_id(one) is not None})


def byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    """What reads text as GPT-2 does, byte by byte."""
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return inner


def read_wordpiece(path: str | Path, *, lowercase: bool) -> Pieces:
    """BERT's tokenizer over a `vocab.txt`: Chinese characters apart, words cut into the longest known pieces.

    `lowercase` is as the checkpoint was trained: it also takes accents off.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OrchardError(f"{path} cannot be read as a list of pieces: {error}") from None
    words: dict[str, int] = {}
    for n, word in enumerate(lines[:-1] if not lines[-1] else lines):
        if words.setdefault(word.rstrip("\r"), n) != n:
            raise OrchardError(f"{path}, line {n + 1}: '{word[:80]}' is there twice")
    if BERT_SPECIALS["unknown"] not in words:
        raise OrchardError(f"{path} has no [UNK]; expected BERT's vocab.txt, one piece a line")
    inner = tokenizers.Tokenizer(
        models.WordPiece(words, unk_token=BERT_SPECIALS["unknown"], max_input_chars_per_word=100)
    )
    inner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##")
    return Pieces("wordpiece", inner, {role: token for role, token in BERT_SPECIALS.items() if token in words})


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """What `save` wrote. Raises OrchardError that names the file which is missing or not of the form."""
    path, library = Path(folder) / "text.json", Path(folder) / "tokenizer.json"
    about = read_about(path)
    if about.kind == "characters":
        if about.characters is None or about.fallback is None or isinstance(about.specials, dict):
            raise OrchardError(f"{path} is not of the form that save() writes: expected characters, fallback, specials")
        try:
            return Characters(about.characters, about.fallback, about.specials)
        except UsageError as error:
            raise OrchardError(f"{path}: {error}") from None
    if about.kind == "whitespace":
        return _load_words(path, about.words)
    if about.kind not in MODELS:
        raise unknown("kind of tokenizer", about.kind, ("characters", "whitespace", *MODELS))
    if not isinstance(about.specials, dict):
        raise OrchardError(f"{path} is not of the form that save() writes: 'specials' has no token for each role")
    check_library_file(library, about.kind, about.specials.values())
    with library_reads(f"{library} is no file of the tokenizers library"):
        return Pieces(about.kind, tokenizers.Tokenizer.from_str(_json(read_json(library))), about.specials)


def _load_words(path: Path, words: Sequence[str] | None) -> Tokenizer:
    from orchard.data.words import Words  # it is a tokenizer itself, and imports this module

    if words is None:
        raise OrchardError(f"{path} is not of the form that save() writes: expected words")
    try:
        return Words(words)
    except UsageError as error:
        raise OrchardError(f"{path}: {error}") from None


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1)
