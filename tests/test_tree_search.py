"""The tree search, against alpha-zero-general and against a simple recursive one."""

import math
from pathlib import Path

import numpy as np
import pytest

from orchard.data.games import open_game
from orchard.data.games.lines import TicTacToe
from orchard.tasks.board_games.search import RootNoise, Search, dirichlet, visit_policy
from orchard.weights.golden import read_golden

GOLDEN = Path(__file__).parent / "golden" / "alphazero"


class DrawsCount(TicTacToe):
    """alpha-zero-general's tic-tac-toe: a draw is worth a little."""

    def result(self, boards):
        found = super().result(boards)
        return np.where(found == 0, 1e-4, found)


def stored_net(weights, values):
    """The fixed network of the stored cases."""
    bias = 0.1 * np.arange(len(weights)) / len(weights)

    def evaluate(boards):
        flat = boards.reshape(len(boards), -1).astype(np.float64)
        logits = flat @ weights.T + bias
        exp = np.exp(logits - logits.max(1, keepdims=True))
        return exp / exp.sum(1, keepdims=True), np.tanh(flat @ values)

    return evaluate


@pytest.mark.parametrize("case", ["mcts_tictactoe", "mcts_othello6"])
def test_visits_values_and_moves_of_a_whole_game_are_alpha_zero_general_s(case):
    stored = read_golden(GOLDEN / case)
    weights, values = (stored.given(name).numpy() for name in ("W", "V"))
    game = DrawsCount() if case == "mcts_tictactoe" else open_game("game:othello-6x6")
    net = stored_net(weights, values)
    args = stored.meta["args"]
    search = Search(game, lambda boards: (net(boards)[0][:, : game.actions], net(boards)[1]), 1, args["cpuct"])
    boards = game.start()[None]
    expected = stored.computed("visit_counts").numpy()[:, : game.actions]
    for move, counts in enumerate(expected):
        visits, _ = search.run(np.array([0]), boards, args["sims"])
        assert (visits[0] == counts).all(), f"move {move}"
        assert np.allclose(visit_policy(visits, 1.0)[0], stored.computed("pi").numpy()[move, : game.actions])
        if move == 0:
            assert visits.sum() == args["sims"] - 1  # the first simulation only looks at the root
            root = search.forest.find(np.array([0]), boards)[0]
            q = search.forest.totals[root] / np.maximum(search.forest.visits[root], 1)
            tried = search.forest.visits[root] > 0
            assert np.allclose(q[tried], stored.computed("Q_root").numpy()[: game.actions][tried], atol=1e-12)
            assert np.allclose(search.forest.priors[root], stored.computed("P_root").numpy()[: game.actions])
            half = visit_policy(visits, 0.5)[0]
            assert np.allclose(half, stored.computed("pi_temp_0.5").numpy()[: game.actions])
        action = visit_policy(visits, 0.0).argmax(1)
        assert action[0] == stored.computed("moves")[move]
        boards = game.play(boards, action)


def guess(boards):
    """A network that is none: any function of a board."""
    flat = boards.reshape(len(boards), -1).astype(np.float64)
    waves = np.sin(flat @ np.arange(1, flat.shape[1] + 1))[:, None]
    policies = np.exp(np.cos(waves * np.arange(7)))
    return policies / policies.sum(1, keepdims=True), np.tanh(waves[:, 0])


def test_games_beside_each_other_are_searched_as_each_alone():
    game = open_game("game:connect-four")
    starts = []
    for moves in ([], [3], [3, 3, 2], [0, 6]):
        board = game.start()[None]
        for move in moves:
            board = game.play(board, np.array([move]))
        starts.append(board[0])
    together = Search(game, guess, 4, 1.5).run(np.arange(4), np.stack(starts), 40)
    for number, board in enumerate(starts):
        alone = Search(game, guess, 1, 1.5).run(np.array([0]), board[None], 40)
        assert (alone[0][0] == together[0][number]).all() and math.isclose(alone[1][0], together[1][number])


def test_a_win_in_one_is_found_and_a_loss_in_one_is_prevented():
    game = open_game("game:tic-tac-toe")
    even = lambda boards: (np.full((len(boards), 9), 1 / 9), np.zeros(len(boards)))  # noqa: E731
    win = np.array([[[1, 1, 0], [-1, -1, 0], [0, 0, 0]]], np.int8)
    visits, value = Search(game, even, 1, 1.5).run(np.array([0]), win, 200)
    assert visits[0].argmax() == 2 and value[0] > 0.8
    prevent = np.array([[[1, 0, 0], [-1, -1, 0], [0, 0, 1]]], np.int8)
    visits, _ = Search(game, even, 1, 1.5).run(np.array([0]), prevent, 400)
    assert visits[0].argmax() == 5


def test_noise_is_over_allowed_moves_follows_from_its_seed_and_turns_the_root():
    legal = np.array([[True, False, True, True, True, True, True]])
    first, again = (dirichlet(legal, 1.0, 0.25, [3, 5]) for _ in range(2))
    assert (first.noise == again.noise).all() and (dirichlet(legal, 1.0, 0.25, [3, 6]).noise != first.noise).any()
    assert first.noise[0, 1] == 0 and math.isclose(first.noise.sum(), 1)
    game = open_game("game:connect-four")
    only = RootNoise(np.eye(7)[[6]], 1.0)
    visits, _ = Search(game, guess, 1, 50.0).run(np.array([0]), game.start()[None], 20, only)
    assert visits[0].argmax() == 6 and visits[0, 6] == 19


def test_policies_of_visits():
    visits = np.array([[1, 3, 0], [2, 2, 2]])
    assert np.allclose(visit_policy(visits, 1.0), [[0.25, 0.75, 0], [1 / 3] * 3])
    assert np.allclose(visit_policy(visits, 0.5)[0], [0.1, 0.9, 0])
    assert visit_policy(visits, 0).tolist() == [[0, 1, 0], [1, 0, 0]]
