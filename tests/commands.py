"""The command line, called in this process."""

from __future__ import annotations

import sys

from orchard.cli.main import build
from orchard.cli.output import run_app


def orchard(*words: object) -> int:
    """The exit code of `orchard WORDS`."""
    before, sys.argv = sys.argv, ["orchard", *map(str, words)]
    try:
        return run_app(lambda: build(sys.argv[1:]), debug=False)
    finally:
        sys.argv = before
