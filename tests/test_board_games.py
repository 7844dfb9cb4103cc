"""Learning a game by playing it: through the same commands and the same run folder as all else."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import orchard
from safetensors.torch import load_file
from stopping import stopped_after

from orchard.app.answer import answer
from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.play import play
from orchard.app.train import train
from orchard.data.games import open_game
from orchard.data.games.notation import read_position
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.tasks.board_games.arena import lost_positions, opponent_of, play_match
from orchard.tasks.board_games.feed import SelfPlayFeed
from orchard.tasks.board_games.objective import SelfPlayLearner
from orchard.tasks.board_games.players import SearchPlayer, minimax_player, perfect_player, random_player
from orchard.tasks.board_games.replay import Window
from orchard.tasks.board_games.self_play import draw_actions, play_round
from orchard.tasks.board_games.settings import Evaluation, SelfPlaySettings, Settings
from orchard.weights.portable import Portable, save_portable

NAME = "game:tic-tac-toe"
TINY = {
    "epochs": 2,
    "batch_size": 8,
    "log_every": 1,
    "architecture.channels": 4,
    "architecture.blocks": 1,
    "self_play.games": 3,
    "self_play.simulations": 4,
    "self_play.updates": 3,
    "self_play.rounds": 1,
    "self_play.gate": 0.55,
    "self_play.gate_games": 2,
    "evaluation.games": 4,
    "evaluation.simulations": 2,
}


def even(boards):
    """A network that knows nothing."""
    return np.full((len(boards), 9), 1 / 9), np.zeros(len(boards))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training without interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train("alphazero_nano", NAME, out, **TINY)
    return out


def test_run_folder_is_complete(run: Path) -> None:
    metrics, facts = (json.loads((run / f"{name}.json").read_text()) for name in ("metrics", "run"))
    assert metrics["task"] == "board-games" and metrics["steps"] == 6 and facts["data"]["format"] == "game"
    shares = metrics["test"]
    assert math.isclose(shares["wins"] + shares["draws"] + shares["losses"], 1)
    assert shares["points"] == shares["wins"] + shares["draws"] / 2 and shares["lost_positions"] >= 0
    games = json.loads((run / "evaluation" / "test.json").read_text())
    assert games["opponent"] == "a perfect player" and len(games["games"]) == 4
    game = open_game(NAME)
    for number, one in enumerate(games["games"]):
        ended = read_position(game, " ".join(one["moves"])).outcome(game)
        expected = {0: "a draw", 1: "X has won", -1: "O has won"}[one["result"] * (1 if number % 2 == 0 else -1)]
        assert ended == expected
    page = (run / "report.html").read_text()
    for words in ("Strength", "Ways to beat it", "What it thinks of moves", "data:image/", "against a perfect player"):
        assert words in page


def test_stopped_between_and_within_rounds_it_ends_in_the_same_bits(run: Path, tmp_path: Path) -> None:
    for step in (2, 4):
        with stopped_after(step, 6):
            train("alphazero_nano", NAME, tmp_path / "run", **TINY)
    train("alphazero_nano", NAME, tmp_path / "run", **TINY)
    for file in ("model/model.safetensors", "checkpoints/step_000000006/model.safetensors"):
        expected, found = (load_file(folder / file) for folder in (run, tmp_path / "run"))
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    ends = [json.loads((folder / "metrics.json").read_text())["test"] for folder in (run, tmp_path / "run")]
    assert ends[0] == ends[1]


def test_moves_are_advised_shown_and_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    position = "XX./OO./... X"
    (found,) = (one.to_json() for one in answer(run, [position], {"simulations": 150}))
    assert found["move"] == "c1" and found["value"] > 0.7 and set(found["policy"]) == {"c1", "c2", "a3", "b3", "c3"}
    assert math.isclose(sum(found["policy"].values()), 1)
    assert pipeline(run, simulations=150)(position).move == "c1"
    alone = pipeline(run, simulations=0)
    assert alone("").policy.sum() == pytest.approx(1) and len(alone(["", position])) == 2
    assert orchard("predict", run, position, "--simulations", "150") == 0
    shown = capsys.readouterr().out
    assert "X to move" in shown and "play c1; value" in shown and " 1   X    X" in shown
    assert orchard("predict", run, "b2 b2", "a1", "--json") == 1
    printed = capsys.readouterr()
    assert "O cannot play b2 here" in printed.err and json.loads(printed.out)[1]["position"] == "a1"
    assert orchard("predict", run, "--csv", tmp_path / "moves.csv") == 0
    assert (tmp_path / "moves.csv").read_text().startswith("position,move,value,policy,error\n")


def test_a_person_plays(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["b9", "?", "c1", "back", "c1"])
    shown: list[str] = []
    assert play(run, lambda prompt: next(lines), shown.append, position="XX./OO./... X") == "X has won"
    text = "\n".join(shown)
    assert "no move of tic-tac-toe" in text and "c1 is best" in text and " 1 X X X" in text

    def ends(prompt: str) -> str:
        raise EOFError

    assert play(run, ends, shown.append, second=True) == "the game was left" and "X plays" in "\n".join(shown)
    words = iter(["a1", "b2", "quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(words))
    assert orchard("play", run, "XX./OO./... O", "--simulations", "5") == 0
    assert "You are X" in capsys.readouterr().out


def test_evaluation_is_that_of_the_training_or_another(run: Path) -> None:
    again = evaluate(run, NAME, "test", {"evaluation.games": 4, "evaluation.simulations": 2})
    assert again["test"] == json.loads((run / "metrics.json").read_text())["test"]
    assert again["opponent"] == "a perfect player"
    other = evaluate(
        run, NAME, "test", {"evaluation.opponent": "random", "evaluation.games": 6, "evaluation.simulations": 0}
    )
    assert other["opponent"] == "random moves" and other["count"] == 6


def test_wrong_calls_are_one_line(run: Path, tmp_path: Path) -> None:
    four, perfect = "game:connect-four", {"evaluation.opponent": "perfect"}
    for words, call in (
        ("did you mean connect-four", lambda: train("alphazero_nano", "game:conect-four", tmp_path / "a")),
        ("without a tower", lambda: train("alphazero_general", NAME, tmp_path / "b")),
        ("one device", lambda: train("alphazero_nano", NAME, tmp_path / "c", devices=2)),
        ("too many positions", lambda: train("alphazero_nano", four, tmp_path / "d", **perfect)),
        ("has learned game:tic-tac-toe, not game:connect-four", lambda: evaluate(run, four, "test")),
        ("has no train split", lambda: evaluate(run, NAME, "train")),
        ("no option --episodes", lambda: list(answer(run, [], {"episodes": 2}))),
        ("tac-toe, not game:c", lambda: train("alphazero_nano", four, tmp_path / "e", start_from=str(run))),
        ("the game is over, X has won", lambda: pipeline(run)("XXX/OO./... O")),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_model_of_no_known_game_or_another_task_plays_nothing(run: Path, digits_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is for image-classification; one can play against models for board-games"):
        play(digits_model, input, print)
    model = create_model("alphazero_nano", board=(3, 4))
    save_portable(tmp_path / "model", model, Portable("alphazero_nano", dict(vars(model.config)), "board-games"))
    with pytest.raises(UsageError, match="is for 3 x 4 cells and 9 moves: no known game"):
        pipeline(tmp_path / "model")


@pytest.fixture
def digits_model(tmp_path: Path) -> Path:
    model = create_model("lenet5", num_classes=10)
    save_portable(tmp_path / "lenet", model, Portable("lenet5", dict(vars(model.config)), "image-classification"))
    return tmp_path / "lenet"


# Players and matches


def test_a_perfect_player_is_never_beaten_and_a_greedy_one_is() -> None:
    game = open_game(NAME)
    assert [lost_positions(game, perfect_player(game, 0), first) for first in (True, False)] == [0, 0]
    assert lost_positions(game, minimax_player(game, 1, 0), False) > 0
    draws = play_match(game, perfect_player(game, 0), perfect_player(game, 1), 10)
    assert (draws.results == 0).all() and draws.points == 0.5
    against = play_match(game, perfect_player(game, 0), random_player(game, 1), 40)
    assert against.points > 0.8 and (against.results >= 0).all()


def test_minimax_wins_prevents_and_looks_further_when_deeper() -> None:
    game = open_game("game:connect-four")
    three = read_position(game, "1 7 2 7 3 6").board[None]
    assert minimax_player(game, 1, 0)(np.array([0]), three)[0] == 3
    assert minimax_player(game, 2, 0)(np.array([0]), -three)[0] == 3
    deep = play_match(game, minimax_player(game, 2, 0), minimax_player(game, 1, 1), 8, opening=2)
    assert deep.points > 0.6
    pairs = play_match(game, random_player(game, 0), random_player(game, 1), 4, opening=3, seed=1).moves
    assert pairs[0][:3] == pairs[1][:3] and pairs[2][:3] == pairs[3][:3]
    assert opponent_of(game, Evaluation(depth=3), 0)[0] == "minimax, 3 moves ahead"
    assert opponent_of(open_game("game:othello-6x6"), Evaluation(), 0)[0] == "a greedy player"


def test_search_alone_beats_random_moves() -> None:
    game = open_game(NAME)
    found = play_match(game, SearchPlayer(game, even, 20, 60, 1.5), random_player(game, 0), 20)
    assert found.points > 0.85


def test_a_round_is_whole_games_with_their_results() -> None:
    game, settings = open_game(NAME), SelfPlaySettings(games=6, simulations=8, temperature_moves=3)
    played, again = (play_round(game, even, settings, 1, 2) for _ in range(2))
    assert all(np.array_equal(getattr(played, name), getattr(again, name)) for name in vars(played))
    assert not np.array_equal(played.policies, play_round(game, even, settings, 1, 3).policies)
    assert len(played.values) == played.lengths.sum() and np.allclose(played.policies.sum(1), 1)
    first = played.values[:6]
    assert (first == played.results).all() and (played.values[6:12] == -played.results).all()
    stones = (played.boards != 0).sum((1, 2))
    assert (np.diff(stones) >= 0).all() and stones[0] == 0
    assert draw_actions(np.array([[0.5, 0, 0.5]] * 3), np.array([0.0, 0.49, 0.99])).tolist() == [0, 0, 2]


def test_the_window_keeps_the_last_positions_and_turns_them() -> None:
    game = open_game(NAME)
    window = Window(game, 4)
    boards = np.zeros((6, 3, 3), np.int8)
    boards[:, 0, 0], policies = 1, np.zeros((6, 9), np.float32)
    policies[:, 2] = 1
    window.add(boards=boards, policies=policies, values=np.arange(6, dtype=np.float32))
    drawn = window.sample(64, 0, 0)
    assert set(drawn.values.tolist()) == {2.0, 3.0, 4.0, 5.0}
    corners = {tuple(np.argwhere(board)[0].tolist()) for board in drawn.boards.numpy()}
    assert corners == {(0, 0), (0, 2), (2, 0), (2, 2)}
    stones, best = drawn.boards.flatten(1).argmax(1), drawn.policies.argmax(1)
    assert {(int(s), int(b)) for s, b in zip(stones, best, strict=True)} <= {
        (a, b) for a in (0, 2, 6, 8) for b in (0, 2, 6, 8) if a != b and a + b != 8
    }
    other = Window(game, 4)
    other.load(window.state())
    again, kept = (vars(one.sample(8, 1, 5)) for one in (other, window))
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    with pytest.raises(OrchardError, match="at most 2 of 3 x 3"):
        Window(game, 2).load(window.state())


def test_the_newest_plays_once_it_has_beaten_the_best() -> None:
    torch.manual_seed(0)
    for gate, changes in ((0.0001, True), (1.0, False)):
        settings = Settings.model_validate(
            {"model": "alphazero_nano", "data": {"source": NAME}, "batch_size": 2,
             "self_play": {"games": 2, "simulations": 2, "updates": 1, "gate": gate, "gate_games": 4}}
        )  # fmt: skip
        learner = SelfPlayLearner(create_model("alphazero_nano", channels=4, blocks=1), True)
        batches = SelfPlayFeed(learner, open_game(NAME), settings).batches(0)
        next(batches)
        with torch.no_grad():
            learner.network.value_head.bias += 1
        next(batches)
        assert (learner.best.value_head.bias == learner.network.value_head.bias).all() == changes
        assert learner.network.training and not learner.best.value_head.bias.requires_grad
