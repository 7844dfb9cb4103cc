"""What every command shares: where words go, what --json prints, how errors end.

Answers go to stdout, as a table or as one JSON value; progress, warnings and logs go to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from orchard.terminal import note, plain

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else there.")]
STOPPED = 130  # by Ctrl-C, as shells have it


def emit(value: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """Print the answer: `value` as JSON, or whatever `show` makes of it for a person."""
    from orchard.files import json_text

    if as_json:
        sys.stdout.write(json_text(value, indent=2) + "\n")
    else:
        show(value)


def tell(line: str) -> None:
    """One line of an answer for a person, on stdout."""
    sys.stdout.write(plain(line) + "\n")


def tell_all(lines: Iterable[str]) -> None:
    """Lines of our own words, which may have been made `bold`, on stdout."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def bold(text: str) -> str:
    """Our own words in bold, on a terminal that may have it (https://no-color.org)."""
    shown = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[1m{text}\x1b[0m" if shown else text


def warn(message: str) -> None:
    """Something a person should know though the work goes on, on stderr."""
    note(f"warning: {message}")


def show_warning(message: Warning | str, *where: object, **more: object) -> None:
    """A library's warning in one line, without the place in its source (`warnings.showwarning`)."""
    warn(" ".join(str(message).split()))


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`["optimizer.lr=3e-4", "augmentation.flip=true"]` as a dictionary; values are read as JSON where they are."""
    from orchard.errors import UsageError

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {pair}: expected key=value, such as --set optimizer.lr=3e-4")
        if key in settings:
            raise UsageError(f"--set {key} is given twice; give it once")
        try:
            settings[key] = json.loads(value)
        except (ValueError, RecursionError):
            settings[key] = value
    return settings


def run_app(make: Callable[[], typer.Typer] | typer.Typer, debug: bool) -> int:
    """Run the command line; every failure becomes one or two lines on stderr and an exit code.

    `make` is the application, or what makes it.
    """
    from orchard.errors import OrchardError
    from orchard.files import NO_ROOM

    try:
        app = make if isinstance(make, typer.Typer) else make()
        command = typer.main.get_command(app)
        with command.make_context("orchard", sys.argv[1:]) as context:  # `command.main` would take Ctrl-C for its own
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as end:  # --help
        return end.exit_code
    except OrchardError as error:
        if debug:
            raise
        note(f"error: {error}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        note("stopped")
        return STOPPED
    except BrokenPipeError:  # the reader (head, less) has gone: no complaint, and none at exit either
        _leave_stdout()
        return 0
    except Exception as error:
        if debug:
            raise
        if _was_interrupted(error):
            note("stopped")
            return STOPPED
        if hasattr(error, "format_message"):  # a wrong call, found by the command-line parser
            nothing_asked = type(error).__name__ == "NoArgsIsHelpError"  # its message is the help
            note(error.format_message() if nothing_asked else f"error: {error.format_message()}")
            return 2
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            note(f"error: cannot write {error.filename or 'the answer'}: {error.strerror}; make room and try again")
            _leave_stdout()
            return 1
        note(f"error: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
        note("this is a fault of Orchard's; the same command with --debug shows where")
        return 1


def _was_interrupted(error: BaseException | None) -> bool:
    """Did Ctrl-C come while a library was at work that made an error of its own of it?"""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _leave_stdout() -> None:
    """What is still to be written goes nowhere, so that nothing is said of it at exit."""
    with contextlib.suppress(OSError, ValueError):  # stdout may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
