"""`orchard`: one verb a command. Each command's file imports what it needs when it runs, so that `--help`,
`list` and `show` answer at once and never import torch.
"""

from __future__ import annotations

import io
import sys
import warnings
from typing import Annotated

import typer

from orchard.cli import bench, catalogue, compare, data, explain, export, imports, train, verify
from orchard.cli.answer import answer_command
from orchard.cli.compress import compress_command
from orchard.cli.output import run_app, show_warning, tell


def build(arguments: list[str]) -> typer.Typer:
    """All commands; the options of `predict` and `generate` are those of the run that is named."""
    app = typer.Typer(
        name="orchard",
        help="The landmark systems of deep learning, on your own data. Every command takes --json and --debug.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_common)
    app.command("list")(catalogue.list_models)
    app.command("show")(catalogue.show)
    app.add_typer(data.data_app, name="data")
    app.command("train")(train.train)
    app.command("evaluate")(train.evaluate)
    for name in ("predict", "generate"):
        app.command(name)(answer_command(name, arguments if name in arguments[:1] else []))
    app.command("explain")(explain.explain_model)
    app.command("compare")(compare.compare_models)
    app.command("compress")(compress_command("compress" in arguments[:1] and bool({"-h", "--help"} & {*arguments})))
    app.command("verify")(verify.verify_models)
    app.command("import")(imports.import_model)
    app.command("export")(export.export)
    app.command("bench")(bench.bench)
    return app


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
