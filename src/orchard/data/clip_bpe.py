"""OpenAI's byte-pair encoding for CLIP, read from the file of merges that a person has."""

from __future__ import annotations

import html
from pathlib import Path

from orchard.data.text_tokenizer import SentenceEncoder
from orchard.data.tokenizer_files import check_unicode, library_reads
from orchard.errors import OrchardError
from orchard.packed import read_bytes

MERGES = 49152 - 256 - 2  # of the file's 262144, those that count; with the bytes, 49408 tokens
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
START, END = "<|startoftext|>", "<|endoftext|>"


def read_clip_bpe(path: str | Path, context: int = 77) -> SentenceEncoder:
    """Sentences to (context,) int64 as OpenAI's checkpoints expect them.

    `path` is `bpe_simple_vocab_16e6.txt.gz` of their repository: a heading, then one merge a line. Text is lower-cased
    and HTML entities are resolved; wrongly decoded text is not repaired (OpenAI's code asks ftfy to). Raises
    OrchardError for a file of another form.
    """
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    except ImportError:
        raise OrchardError("CLIP's encoding needs the package tokenizers: pip install tokenizers") from None
    merges = _read_merges(Path(path))
    places = clip_tokens(path)
    with library_reads(f"{path} is no file of merges"):
        model = models.BPE(places, merges, continuing_subword_prefix="", end_of_word_suffix="</w>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )

    def ids(text: str) -> list[int]:
        check_unicode(text)
        return tokenizer.encode(html.unescape(html.unescape(text)), add_special_tokens=False).ids  # type: ignore[no-any-return]

    return SentenceEncoder(ids, context, places[START], places[END])


def clip_tokens(path: str | Path) -> dict[str, int]:
    """The id of every token that the file of merges makes."""
    names = _byte_names()
    merged = ("".join(merge) for merge in _read_merges(Path(path)))
    tokens = [*names, *(name + "</w>" for name in names), *merged, START, END]
    places = {token: n for n, token in enumerate(tokens)}
    if len(places) != len(tokens):
        raise OrchardError(f"{path} merges the same tokens twice, or makes one that there is already")
    return places


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        lines = read_bytes(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise OrchardError(f"{path}: no file of merges: {error}") from None
    merges = []
    for number, line in enumerate(lines[1 : MERGES + 1], 2):
        pair = line.split()
        if len(pair) == 2:
            merges.append((pair[0], pair[1]))
        elif pair:
            raise OrchardError(f"{path}, line {number}: expected two tokens that merge, got {len(pair)}")
    return merges


def _byte_names() -> list[str]:
    """The character that stands for each byte in the file, in the order of the ids: printable bytes first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = 256 - len(printable)
    return [chr(code) for code in (*printable, *range(256, 256 + others))]
