"""A person against a trained network, in a terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchard.errors import UsageError
from orchard.tasks.board_games.settings import Options

HELP = "a move's name plays it, ? asks for advice, back takes a move back, quit ends"


def play(
    folder: Path,
    options: Options,
    ask: Callable[[str], str],
    show: Callable[[str], None],
    *,
    second: bool = False,
    position: str = "",
) -> str:
    """One game from `position` or the start, in which the person is X, or O with `second`; how it ended.

    `ask(prompt)` gives a line of the person's, `show(line)` takes one for them. What is no move is said and asked for
    again; at the end of the input the game is left.
    """
    from orchard.data.games.notation import Position, board_lines, read_action, read_position
    from orchard.inference.loading import load
    from orchard.tasks.board_games.pipeline import MovePipeline

    pipeline = MovePipeline(load(folder), simulations=options.simulations, exploration=options.exploration)
    game = pipeline.game
    here = read_position(game, position)
    before: list[Position] = []
    person = "O" if second else "X"
    show(f"{game.name}: {game.rules}. You are {person}; {HELP}.")
    while not (ended := here.outcome(game)):
        if here.player != person:
            advice = pipeline(here)
            show(f"{here.player} plays {advice.move} (it thinks it stands at {advice.value:+.2f})")
            here = here.after(game, advice.action)
            continue
        show("\n".join(board_lines(game, here)))
        try:
            word = ask(f"{person}: ").strip()
        except (EOFError, KeyboardInterrupt):
            word = "quit"
        if word == "quit":
            return "the game was left"
        if word == "?":
            advice = pipeline(here)
            show(f"{advice.move} is best, at {advice.value:+.2f}")
        elif word == "back":
            here = before.pop() if before else here
        elif word:
            try:
                following = here.after(game, read_action(game, word))
                before.append(here)
                here = following
            except UsageError as error:
                show(str(error))
    show("\n".join(board_lines(game, here)))
    return ended
