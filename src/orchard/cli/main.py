"""`orchard`: one verb a command. Each command's file imports what it needs when it runs, so that `--help`,
`list` and `show` answer at once and never import torch.
"""

from __future__ import annotations

import sys

import typer

from orchard.cli import bench, catalogue, compare, data, export, generate, imports, predict, train, verify
from orchard.cli.output import run_app

app = typer.Typer(
    name="orchard",
    help="The landmark systems of deep learning, on your own data. Every command takes --json and --debug.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("list")(catalogue.list_models)
app.command("show")(catalogue.show)
app.add_typer(data.data_app, name="data")
app.command("train")(train.train)
app.command("evaluate")(train.evaluate)
app.command("predict")(predict.predict)
app.command("generate")(generate.generate)
app.command("compare")(compare.compare_models)
app.command("verify")(verify.verify_models)
app.command("import")(imports.import_model)
app.command("export")(export.export)
app.command("bench")(bench.bench)


def main() -> None:
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    sys.exit(run_app(app, debug))


if __name__ == "__main__":
    main()
