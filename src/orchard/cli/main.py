"""`orchard`: one verb a command. Only the file of the command that is asked for is imported, and each imports what it
needs when it runs, so that `--help`, `list` and `show` answer at once and never import torch.
"""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from typing import Annotated, Any

import typer

from orchard.cli.output import run_app, show_warning, tell

COMMANDS = {  # in the order of the help: where each is, `module:name` in this folder
    "list": "catalogue:list_models",
    "show": "catalogue:show",
    "data": "data:data_app",
    "train": "train:train",
    "evaluate": "train:evaluate",
    "predict": "answer:predict_command",
    "generate": "answer:generate_command",
    "play": "play:play_game",
    "explain": "explain:explain_model",
    "compare": "compare:compare_models",
    "compress": "compress:compress_command",
    "verify": "verify:verify_models",
    "import": "imports:import_model",
    "export": "export:export",
    "bench": "bench:bench",
}


def build(arguments: list[str]) -> typer.Typer:
    """The command that `arguments` ask for, or all; options of `predict` and `generate` are those of the named run."""
    app = typer.Typer(
        name="orchard",
        help="The landmark systems of deep learning, on your own data. Every command takes --json and --debug.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_common)
    asked = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    for name in COMMANDS:
        found = _command(name, arguments if asked else []) if asked in ("", name) else _not_asked
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _command(name: str, arguments: list[str]) -> Any:
    """A command, or a group of them; one whose name ends in `_command` is made for the arguments."""
    module, _, place = COMMANDS[name].partition(":")
    found = getattr(importlib.import_module(f"orchard.cli.{module}"), place)
    return found(arguments) if place.endswith("_command") else found


def _not_asked() -> None:
    pass


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        tell(f"orchard {metadata.version('orchard')}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: what an encoding lacks costs no answer
    debug = "--debug" in sys.argv
    if not debug:
        warnings.showwarning = show_warning
    if debug:
        sys.argv.remove("--debug")
    sys.exit(run_app(lambda: build(sys.argv[1:]), debug))


if __name__ == "__main__":
    main()
