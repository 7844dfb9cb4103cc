"""Fields of a line, and pictures in base64: the form in which EasyNLP (arXiv:2205.00258) hands pictures about.

A line is `idx<TAB>text<TAB>picture`. EasyNLP cuts it at every tab and takes quotes as they are; CSV writers put a text
with a tab or a quote in it in quotes, and double the quotes inside. Both are read, by this rule: a line is cut at every
tab; only if that gives too many fields, tabs within a quoted field are left alone. A field wholly in quotes, all quotes
inside doubled, is what stands between them; every other quote is a character like any other.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import string

from PIL import Image

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_ALPHABET = (string.ascii_letters + string.digits + "+/-_").encode()
_QUOTED = rb'"[^"]*(?:""[^"]*)*"'
_FIELD = re.compile(rb"(?:^|\t)(" + _QUOTED + rb"(?=\t|$)|[^\t]*)")
_WHOLLY = re.compile(_QUOTED)
# How base64 of each format in `pictures.FORMATS` begins: JPEG, PNG, WEBP, BMP, GIF, TIFF (twice), PPM.
_BEGINNINGS = (b"/9j", b"_9j", b"iVBORw0KGgo", b"UklGR", b"Qk", b"R0lGOD", b"SUkq", b"TU0AK", b"UD")


def split_fields(line: bytes, count: int) -> list[bytes]:
    """The fields of a line without its end; `count` says how many there should be (0: nobody knows)."""
    fields = line.split(b"\t")
    if b'"' not in line:
        return fields
    if len(fields) > count:
        fields = _FIELD.findall(line)
    return [_bare(field) if field[:1] == b'"' else field for field in fields]


def _bare(field: bytes) -> bytes:
    return field[1:-1].replace(b'""', b'"') if _WHOLLY.fullmatch(field) else field


def picture_fault(field: bytes) -> str:
    """What shows at a glance that a field is no picture in base64; empty if nothing does."""
    if not field:
        return "the picture is empty"
    bare = field.rstrip(b"=")
    if bare.translate(None, _ALPHABET) or len(bare) % 4 == 1 or len(field) - len(bare) > 2:
        return f"the picture is not base64: {_shown(field)}"
    if not field.startswith(_BEGINNINGS):
        return f"the picture is base64, but of no picture: {_shown(field)}"
    return ""


def _shown(field: bytes) -> str:
    text = field[:24].decode("utf-8", "replace")
    return f"'{text}...'" if len(field) > 24 else f"'{text}'"


def picture_bytes(field: bytes) -> bytes:
    """The bytes of a picture in base64, standard or URL-safe, padded or not. Raises ValueError if it is neither."""
    bare = field.rstrip(b"=").translate(_TO_STANDARD)
    try:
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error:
        raise ValueError("the picture is not base64") from None


def picture_to_base64(picture: Image.Image) -> str:
    """A picture as PNG in URL-safe base64, padded: what EasyNLP reads and writes."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return base64.urlsafe_b64encode(file.getvalue()).decode("ascii")


def row_fault(idx: str, text: str) -> str:
    """Why a row with these cannot be written, so that it is read again as it was; empty if it can."""
    if "\t" in idx or set("\r\n") & set(idx + text):
        return f"idx {idx!r} and text {text!r} must stand in one line, and the idx without tabs"
    return ""


def write_row(idx: str, text: str, picture: Image.Image) -> str:
    """The line `idx<TAB>text<TAB>picture` with its end; the text is quoted where it would be misread otherwise.

    Raises ValueError for an idx with a tab and for a line break in either.
    """
    if what := row_fault(idx, text):
        raise ValueError(what)
    quoted = '"' + text.replace('"', '""') + '"' if "\t" in text or text.startswith('"') else text
    return f"{idx}\t{quoted}\t{picture_to_base64(picture)}\n"
