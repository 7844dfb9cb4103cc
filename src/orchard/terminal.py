"""Text on its way to a person: what a name holds is shown, never obeyed. Read without torch or Rich.

Names of files and classes, prompts and what a model writes are other people's. Where they leave us, in a terminal, in
JSON or in a table, this module says what becomes of them.
"""

from __future__ import annotations

import contextlib
import re
import sys

# Control characters but tabs and line ends, marks that turn the direction of writing, halves of surrogate pairs (bytes
# of a file name that are no UTF-8).
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet runs


def plain(text: str) -> str:
    """The text with what a terminal would obey, or could not write, as escapes such as \\x1b."""
    return UNSEEN.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def plain_json(text: str) -> str:
    """JSON with the same characters as JSON's own escapes: it says what it said."""
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cell(value: object) -> str:
    """A cell of a table as a spreadsheet may read it: text that it would run begins with an apostrophe."""
    text = plain(str(value))
    if not text.startswith(FORMULA):
        return text
    with contextlib.suppress(ValueError):
        float(text)
        return text
    return "'" + text


def note(line: str) -> None:
    """One line for a person, on stderr. If nobody reads it, the work goes on."""
    with contextlib.suppress(OSError):
        sys.stderr.write(plain(line) + "\n")
