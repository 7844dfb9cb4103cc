"""Which column of a picture TSV is what: as a person says, as its header says, or by looking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchard.data.captions.contracts import CaptionSettings
from orchard.data.captions.fields import picture_fault, split_fields
from orchard.errors import OrchardError, UsageError

NAMES = {
    "idx": ("idx", "id", "index", "image_id", "item_id"),
    "text": ("text", "caption", "sentence", "query", "prompt"),
    "picture": ("imgbase64", "image_base64", "img_base64", "base64", "picture", "image", "img"),
}
_EXPECTED = "expected idx<TAB>text<TAB>picture in base64"
_SAY = "say which with --set data.columns.{role}=NUMBER, counted from 1"


@dataclass(frozen=True)
class Layout:
    """Places of the columns, counted from 0, and how many there are; `header`: the first line names them."""

    count: int
    idx: int | None
    text: int
    picture: int
    header: bool


def find_layout(path: Path, lines: Sequence[bytes], settings: CaptionSettings) -> Layout:
    """The layout of a file that begins with `lines` (some 20 of them, without their ends).

    The first line is a header if columns are asked for by name, or if it holds a name that is known for the text and
    one for the picture. Without a header the picture is the column that holds base64 of one. Raises UsageError where
    the settings do not fit the file, OrchardError where there is nothing to see.
    """
    rows = [split_fields(line, 0) for line in lines if line]
    if not rows:
        raise OrchardError(f"{path} is empty; {_EXPECTED}")
    wanted = {role: value for role, value in settings.columns.model_dump(include={*NAMES}).items() if value is not None}
    header = [field.decode("utf-8", "replace").strip().lower() for field in rows[0]]
    names = _has_header(path, header, wanted, settings.header)
    body = rows[1:] if names else rows
    count = len(header) if names else Counter(map(len, body)).most_common(1)[0][0]
    body = [row for row in body if len(row) == count]
    places: dict[str, int] = {}
    for role in NAMES:
        place = _given(path, role, wanted.get(role), header if names else None, count)
        if place is not None:
            places[role] = place
    if "picture" not in places:
        looks = {place for row in body for place, field in enumerate(row) if not picture_fault(field)}
        looks -= set(places.values())
        if len(looks) != 1:
            what = "several columns could be the picture; " + _SAY.format(role="picture") if looks else _EXPECTED
            raise OrchardError(f"{path}: {'' if looks else 'no column holds pictures in base64; '}{what}")
        places["picture"] = looks.pop()
    if "text" not in places:
        left = [place for place in range(count) if place not in places.values()]
        if len(left) == 2 and "idx" not in places:
            places["idx"] = left.pop(0)
        if len(left) != 1:
            raise UsageError(f"{path}: {len(left)} of {count} columns could be the text; {_SAY.format(role='text')}")
        places["text"] = left[0]
    if len(set(places.values())) < len(places):
        raise UsageError(f"{path}: one column cannot be two things, and data.columns comes to {places}")
    return Layout(count, places.get("idx"), places["text"], places["picture"], names)


def _has_header(path: Path, header: list[str], wanted: dict[str, str | int], setting: str) -> bool:
    by_name = next((role for role, value in wanted.items() if isinstance(value, str)), None)
    if by_name and setting == "no":
        raise UsageError(f"{path}: data.columns.{by_name} is a name, but data.header=no; give the column's number")
    known = all(set(header) & set(NAMES[role]) for role in ("text", "picture"))
    return setting == "yes" or (setting == "auto" and (known or by_name is not None))


def _given(path: Path, role: str, wanted: str | int | None, header: list[str] | None, count: int) -> int | None:
    """The place of a column that a person or the header names."""
    if isinstance(wanted, int):
        if not 1 <= wanted <= count:
            raise UsageError(f"{path}: data.columns.{role}={wanted}, but there are columns 1 to {count}")
        return wanted - 1
    if header is None:
        return None
    candidates = (wanted.lower(),) if wanted is not None else NAMES[role]
    found = [place for place, name in enumerate(header) if name in candidates]
    if wanted is not None and len(found) != 1:
        raise UsageError(f"{path}: {len(found)} columns are named '{wanted}'; the first line has {', '.join(header)}")
    if len(found) > 1:
        raise UsageError(f"{path}: columns {', '.join(header[f] for f in found)} could all be the {role}; "
                         + _SAY.format(role=role))  # fmt: skip
    return found[0] if found else None
