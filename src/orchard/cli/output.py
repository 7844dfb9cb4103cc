"""What every command shares: where words go, what --json prints, how errors end.

Answers go to stdout, as a table or as one JSON value; progress, warnings and logs go to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else there.")]


def emit(value: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """Print the answer: `value` as JSON, or whatever `show` makes of it for a person."""
    if as_json:
        json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        show(value)


def note(message: str) -> None:
    """One line for a person, on stderr."""
    sys.stderr.write(message + "\n")


def warn(message: str) -> None:
    """Something a person should know though the work goes on, on stderr."""
    note(f"warning: {message}")


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`["optimizer.lr=3e-4", "augmentation.flip=true"]` as a dictionary; values are read as JSON where they are."""
    from orchard.errors import UsageError

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {pair}: expected key=value, such as --set optimizer.lr=3e-4")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return settings


def run_app(app: typer.Typer, debug: bool) -> int:
    """Run the command line; every failure becomes one or two lines on stderr and an exit code."""
    from orchard.errors import OrchardError

    try:
        app(standalone_mode=False)
        return 0
    except OrchardError as error:
        if debug:
            raise
        note(f"error: {error}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        note("stopped")
        return 130
    except BrokenPipeError:  # the reader (head, less) has gone: no complaint, and none at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # a wrong call, found by the command-line parser
            note(f"error: {error.format_message()}")
            return 2
        note(f"error: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
        note("this is a fault of Orchard's; the same command with --debug shows where")
        return 1
