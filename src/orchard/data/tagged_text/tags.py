"""Tags of words: which schemes there are, which entities a sequence of tags stands for, and what in it cannot be.

Everything is kept as BIO (IOB2): B-TYPE begins an entity, I-TYPE goes on with it, O is outside. Other schemes are read
as the conlleval script of CoNLL-2000 reads them, and seqeval by default: no sequence of tags is without a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
PLAIN = "plain"  # the scheme of tags that stand for themselves, such as parts of speech
_TAG = re.compile(r"([BIESMLU])[-_](.+)")
_MEANS = {"M": "I", "L": "E", "U": "S"}  # BMES and BILOU in the letters of BIOES
_SCHEMES = ((set("BIES"), "BIOES"), (set("BILU"), "BILOU"), (set("BMES"), "BMES"))


class Entity(NamedTuple):
    """An entity of words `begin` to before `end`."""

    type: str
    begin: int
    end: int


def parse_tag(tag: str) -> tuple[str, str]:
    """Prefix (B, I, E, S or O) and type of a tag; of one that has no prefix, "" and the tag."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    found = _TAG.fullmatch(tag)
    return (_MEANS.get(found[1], found[1]), found[2]) if found else ("", tag)


def is_chunk_tag(tag: str) -> bool:
    """Is this tag O, or a prefix with a type?"""
    return tag == OUTSIDE or _TAG.fullmatch(tag) is not None


def find_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """The scheme that tags are written in, by the prefixes they have: BIO, IOB1, IO, BIOES, BMES, BILOU or `PLAIN`.

    BIO and IOB1 differ in what begins an entity that no other of its type stands before: B there, I here.
    """
    letters: set[str] = set()
    begun = {"B": 0, "I": 0}
    plain = chunks = 0
    for tags in sentences:
        before = (OUTSIDE, "")
        for tag in tags:
            prefix, kind = parse_tag(tag)
            if prefix == "":
                plain += 1
            elif prefix != OUTSIDE:
                chunks += 1
                letters.add(tag[0])
                if prefix in begun and before[1] != kind:
                    begun[prefix] += 1
            before = prefix, kind
    if plain > chunks:
        return PLAIN
    if letters - {"B", "I"}:
        return next((name for known, name in _SCHEMES if letters <= known), "BIOES")
    if begun["I"] > begun["B"]:
        return "IOB1" if "B" in letters else "IO"
    return "BIO"


def faults_of(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """Where in a sentence a tag cannot stand, and why, by its scheme."""
    if scheme in (PLAIN, "IOB1", "IO"):
        return []
    found = []
    open_type = ""  # the entity that waits to go on; of BIOES it has to
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = parse_tag(tag)
        if prefix in ("I", "E") and kind != open_type:
            found.append((index, f"{tag} follows {tags[index - 1] if index else 'nothing'}"))
        elif scheme != "BIO" and open_type and not (prefix in ("I", "E") and kind == open_type):
            at = min(index, len(tags) - 1)
            found.append((at, f"{tags[index - 1]} is followed by {tags[index] if index < len(tags) else 'nothing'}"))
        open_type = kind if prefix in ("B", "I") else ""
    return found


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags of any scheme stand for, in their order.

    One begins at B and S, where the type changes, and at I or E after O, E or S; it lasts until the next begins or O.
    """
    found: list[Entity] = []
    start: tuple[str, int] | None = None
    before = (OUTSIDE, "")
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = parse_tag(tag)
        begins = prefix != OUTSIDE and (prefix in "BS" or before[0] in "OES" or kind != before[1])
        if start and (begins or prefix == OUTSIDE):
            found.append(Entity(start[0], start[1], index))
            start = None
        if begins:
            start = kind, index
        before = prefix, kind
    return found


def strict_entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of BIO tags that begin with B, as they should (seqeval's mode "strict")."""
    return [entity for entity in entities_of(tags) if tags[entity.begin].startswith("B")]


def as_bio(entities: Iterable[Entity], length: int) -> tuple[str, ...]:
    """BIO tags of `length` words."""
    tags = [OUTSIDE] * length
    for kind, begin, end in entities:
        tags[begin:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - begin - 1)]
    return tuple(tags)
