"""Tokenizers that are learned from the training text: byte-level BPE, WordPiece, unigram pieces, and whole words."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from orchard.cache import cache_folder, make_once
from orchard.data.tokenizer_files import CHINESE
from orchard.data.tokenizers import BERT_SPECIALS, END, Pieces, byte_level
from orchard.errors import UsageError

LONGEST = 128  # bytes of a word that are learned from at once; the time goes with the square of a word's length
SPACE = "▁"  # what SentencePiece writes for the space before a word


def train_bpe(texts: Iterable[str], vocabulary: int, specials: Sequence[str] = ("end",)) -> Pieces:
    """Byte-level BPE as GPT-2's, learned from `texts`: special tokens for the roles in `specials`, 256 bytes, and the
    most frequent pairs.

    Chinese characters stand for themselves: without spaces, whole phrases would be learned as one token each, and a
    phrase that is new would have nothing in common with them. A vocabulary of 257 is bytes alone. Pairs that occur once
    are not joined, so that a short text gives fewer. Long texts come in pieces (`orchard.data.text.pieces`); words of
    more than `LONGEST` bytes are learned from in parts.
    """
    roles = {role: END if role == "end" else f"<|{role}|>" for role in specials}
    if vocabulary < 256 + len(roles):
        needed = "bytes and the end of a text need 257" if len(roles) == 1 else f"bytes and {len(roles)} special tokens"
        raise UsageError(f"a vocabulary of {vocabulary} is too small: {needed}")
    inner = byte_level(models.BPE())
    apart = pre_tokenizers.Split(tokenizers.Regex(CHINESE), "isolated")
    reading = pre_tokenizers.Sequence([apart, inner.pre_tokenizer])
    cut = pre_tokenizers.Split(tokenizers.Regex(f".{{{LONGEST}}}"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([apart, inner.pre_tokenizer, cut])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(roles.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # the library gives it in any order
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.pre_tokenizer = reading
    return Pieces("bpe", inner, roles)


def train_wordpiece(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Pieces:
    """WordPiece as BERT reads it (Devlin et al. 2018, arXiv:1810.04805), in lower case, Chinese characters apart.

    The same texts always give the same pieces: the library numbers pieces within words in any order, and of pairs that
    are equally frequent the lower numbers are joined first, so that the characters within words are given in order, as
    if they were special.
    """
    roles = _roles(specials)
    inner = _bert(models.WordPiece({}, unk_token=roles["unknown"], max_input_chars_per_word=100))
    words = _count_words(texts, inner)
    within = sorted({f"##{character}" for word in words for character in word[1:]})
    first = [*roles.values(), *within]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=first, show_progress=False)
    inner.train_from_iterator(_repeated(words), trainer)
    learned = _bert(models.WordPiece(inner.get_vocab(), unk_token=roles["unknown"], max_input_chars_per_word=100))
    learned.decoder = decoders.WordPiece(prefix="##")
    return Pieces("wordpiece", learned, roles)


def train_words(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Pieces:
    """The most frequent words, in lower case and without accents; signs and Chinese characters are words of their own.

    A word that is not among them is the unknown one.
    """
    roles = _roles(specials)
    inner = _bert(models.WordLevel({}, unk_token=roles["unknown"]))
    trainer = trainers.WordLevelTrainer(vocab_size=vocabulary, special_tokens=list(roles.values()), show_progress=False)
    inner.train_from_iterator(texts, trainer)
    return Pieces("words", inner, roles)


def train_unigram(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Pieces:
    """Pieces of a unigram language model, as SentencePiece learns them (Kudo 2018, arXiv:1804.10959), of cased text.

    The library adds up in any order, so that the same texts give scores that differ in the fourth place: what was
    learned once is kept in the cache, and taken by other processes and by a training that goes on.
    """
    roles = _roles(specials)
    words = dict(sorted(_count_words(texts, _unigram()).items()))
    facts = json.dumps([words, vocabulary, list(roles.items())], ensure_ascii=False)
    place = cache_folder("tokenizers") / f"unigram-{hashlib.sha256(facts.encode()).hexdigest()[:32]}.json"

    def learn(path: Path) -> None:
        inner = _unigram()
        trainer = trainers.UnigramTrainer(
            vocab_size=vocabulary, special_tokens=list(roles.values()), unk_token=roles["unknown"], show_progress=False
        )
        inner.train_from_iterator((text.replace(SPACE, " ") for text in _repeated(words)), trainer)
        inner.save(str(path))

    make_once(place, learn)
    return Pieces("unigram", tokenizers.Tokenizer.from_file(str(place)), roles)


def _unigram() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE)
    inner.decoder = decoders.Metaspace(replacement=SPACE)
    return inner


def _roles(specials: Sequence[str]) -> dict[str, str]:
    """The token of each role, as BERT writes those that it has; the unknown one is always there."""
    return {role: BERT_SPECIALS.get(role, f"[{role.upper()}]") for role in dict.fromkeys(("unknown", *specials))}


def _bert(model: models.Model) -> tokenizers.Tokenizer:
    """A tokenizer that cuts text into words as BERT does, in lower case."""
    inner = tokenizers.Tokenizer(model)
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return inner


def _count_words(texts: Iterable[str], inner: tokenizers.Tokenizer) -> Counter[str]:
    """How often every word occurs that the tokenizer cuts texts into."""
    found: Counter[str] = Counter()
    for text in texts:
        cut = inner.pre_tokenizer.pre_tokenize_str(inner.normalizer.normalize_str(text))
        found.update(word for word, _ in cut)
    return found


def _repeated(words: Mapping[str, int], most: int = 2**14) -> Iterator[str]:
    """Every word as often as it occurs, in texts of no great length."""
    for word, count in words.items():
        for begin in range(0, count, most):
            yield f"{word} " * min(most, count - begin)
