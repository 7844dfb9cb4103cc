"""`orchard play`: a person against a trained model, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchard.cli.output import Json, emit, tell


def play_game(
    run: Annotated[Path, typer.Argument(help="Run or model folder of a model that plays a board game.")],
    position: Annotated[str, typer.Argument(help="Where to begin: moves (`b2 a1`) or a board.")] = "",
    second: Annotated[bool, typer.Option("--second", help="Let the model move first.")] = False,
    simulations: Annotated[int | None, typer.Option(help="Simulations of its search; fewer play worse.")] = None,
    as_json: Json = False,
) -> None:
    """Play a board game against a trained model."""
    from orchard.app.play import play

    options = {} if simulations is None else {"simulations": simulations}
    show = (lambda line: None) if as_json else tell
    ended = play(run, input, show, second=second, position=position, options=options)
    emit({"ended": ended}, as_json, lambda found: tell(found["ended"]))
