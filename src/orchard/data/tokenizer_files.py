"""The files of text tokenizers, checked before the `tokenizers` library reads them.

That library trusts what it reads: it takes memory for the padding and the ids that a file names, runs any regular
expression in it, and ends the process where ids have a gap. So only what `save` writes is read, and ids must be the
numbers from 0 up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from orchard.errors import OrchardError, first_line
from orchard.files import read_as

CHINESE = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"  # the blocks of ideographs that BERT keeps apart, too


MODELS = {"bpe": "BPE", "wordpiece": "WordPiece", "unigram": "Unigram", "words": "WordLevel"}  # the library's words


class _Part(BaseModel):
    """A part of a file whose other keys are switches; the library checks their form."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class About(_Exact):
    """text.json."""

    kind: str
    specials: dict[str, str] | tuple[str, ...]  # the token of each role; of characters, roles alone
    fallback: Literal["unknown", "bytes"] | None = None
    characters: str | None = None
    words: tuple[str, ...] | None = None


class _Pattern(_Exact):
    Regex: Literal[r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"]


class _Split(_Part):
    type: Literal["Split"]
    pattern: _Pattern
    behavior: Literal["Isolated"]


class _ByteLevel(_Part):
    type: Literal["ByteLevel"]


class _Sequence(_Exact):
    type: Literal["Sequence"]
    pretokenizers: Annotated[list[_Split | _ByteLevel], Field(max_length=2)]


class _Bert(_Part):
    type: Literal["BertPreTokenizer"]


class _Metaspace(_Part):
    type: Literal["Metaspace"]


class _Normalizer(_Part):
    type: Literal["BertNormalizer", "NFKC"]


class _Decoder(_Part):
    type: Literal["ByteLevel", "WordPiece", "Metaspace"]


class _Bpe(_Part):
    type: Literal["BPE"]
    dropout: None = None
    unk_token: None = None
    vocab: dict[str, int]
    merges: list[tuple[str, str] | str]


class _WordPiece(_Part):
    type: Literal["WordPiece"]
    vocab: dict[str, int]
    unk_token: str
    max_input_chars_per_word: Annotated[int, Field(ge=1, le=1000)]


class _Words(_Part):
    type: Literal["WordLevel"]
    vocab: dict[str, int]
    unk_token: str


class _Unigram(_Part):
    type: Literal["Unigram"]
    vocab: list[tuple[str, float]]
    unk_id: int | None


class _Added(_Part):
    id: int
    content: str


class _Library(_Part):
    """tokenizer.json."""

    truncation: None = None
    padding: None = None
    post_processor: None = None
    normalizer: _Normalizer | None = None
    pre_tokenizer: Annotated[_Sequence | _ByteLevel | _Bert | _Metaspace, Field(discriminator="type")]
    decoder: _Decoder | None = None
    model: Annotated[_Bpe | _WordPiece | _Words | _Unigram, Field(discriminator="type")]
    added_tokens: list[_Added] = []


class _Vocabulary(RootModel[dict[str, int]]):
    """vocab.json."""


def check_library_file(path: Path, kind: str, tokens: Collection[str]) -> None:
    """Raises OrchardError for a tokenizer.json that is not of the form which a tokenizer of `kind` is saved in.

    `tokens` are special ones that must be in it.
    """
    found = read_as(path, _Library)
    if found.model.type != MODELS[kind]:
        raise OrchardError(f"{path} holds a {found.model.type}, the text.json beside it says {kind}")
    vocabulary = _ids(path, found.model)
    for added in found.added_tokens:
        if vocabulary.setdefault(added.content, added.id) != added.id:
            raise OrchardError(f"{path} gives '{added.content[:80]}' two ids, {added.id} and another")
    check_ids(path, vocabulary)
    absent = [token for token in tokens if token not in vocabulary]
    if absent:
        raise OrchardError(f"{path} has no token '{absent[0][:80]}', which the text.json beside it names")


def _ids(path: Path, model: _Bpe | _WordPiece | _Words | _Unigram) -> dict[str, int]:
    """Pieces and their ids; those of a unigram are their places in a list, which the unknown one must be in."""
    if not isinstance(model, _Unigram):
        return dict(model.vocab)
    if model.unk_id is not None and not 0 <= model.unk_id < len(model.vocab):
        raise OrchardError(f"{path} has {len(model.vocab)} pieces and an unknown one with the id {model.unk_id}")
    return {piece: place for place, (piece, _) in enumerate(model.vocab)}


def check_vocabulary(path: Path) -> None:
    """Raises OrchardError for a vocab.json that is not a table of tokens and their ids."""
    check_ids(path, read_as(path, _Vocabulary).root)


def check_ids(path: Path, vocabulary: dict[str, int]) -> None:
    """Raises OrchardError for ids that are not 0, 1, 2 and so on: memory is taken up to the largest."""
    if set(vocabulary.values()) != set(range(len(vocabulary))):
        used = set(vocabulary.values())
        free = next(n for n in range(len(vocabulary)) if n not in used)
        raise OrchardError(f"{path} has {len(vocabulary)} tokens and none with the id {free}; expected ids from 0 up")


@contextmanager
def library_reads(what: str) -> Iterator[None]:
    """What the library cannot read becomes an OrchardError; its panics are no `Exception`."""
    try:
        yield
    except (OrchardError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise OrchardError(f"{what}: {first_line(error)}") from None


def read_about(path: Path) -> About:
    """What text.json says; OrchardError where it is not of the form that is saved."""
    return read_as(path, About)


def check_unicode(text: str) -> None:
    """Raises OrchardError for a text with half a character in it, such as a name of a file that is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OrchardError(f"character {error.start + 1} of the text {text[:40]!r} is none of Unicode's") from None
