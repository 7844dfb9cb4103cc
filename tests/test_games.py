"""Board games: rules by exhaustive counts and against alpha-zero-general, positions as people write them."""

from pathlib import Path

import numpy as np
import pytest
from commands import orchard

from orchard.data.games import open_game
from orchard.data.games.notation import board_lines, read_action, read_position
from orchard.errors import UsageError
from orchard.weights.golden import read_golden

GOLDEN = Path(__file__).parent / "golden" / "alphazero"


def count(name: str, plies: int) -> tuple[list[int], list[int], int]:
    """Sequences of moves by their length, positions they lead to, and games that are over by then."""
    game = open_game(f"game:{name}")
    boards, ways = game.start()[None], np.array([1])
    sequences, positions, over = [1], [1], 0
    for _ in range(plies):
        going = np.isnan(game.result(boards))
        over += int(ways[~going].sum())
        boards, ways = boards[going], ways[going]
        rows, actions = np.nonzero(game.legal(boards))
        after = game.play(boards[rows], actions).reshape(len(rows), game.cells)
        _, first, place = np.unique(after.view(f"V{game.cells}"), return_index=True, return_inverse=True)
        ways = np.bincount(place.ravel(), weights=ways[rows]).astype(np.int64)
        boards = after[first].reshape(-1, game.rows, game.columns)
        sequences.append(int(ways.sum()))
        positions.append(len(boards))
    over += int(ways[~np.isnan(game.result(boards))].sum())
    return sequences, positions, over


def test_all_games_of_tic_tac_toe_are_counted():
    sequences, positions, over = count("tic-tac-toe", 9)
    assert over == 255_168 and sum(positions) == 5_478
    assert sequences == [1, 9, 72, 504, 3024, 15120, 54720, 148176, 200448, 127872]


def test_connect_four_has_the_published_numbers_of_positions_and_sequences():
    sequences, positions, over = count("connect-four", 7)
    assert positions == [1, 7, 49, 238, 1120, 4263, 16422, 54859]  # Tromp; OEIS A212693
    assert sequences == [1, 7, 49, 343, 2401, 16807, 117649, 823536] and over > 0


def test_othello_has_the_published_numbers_of_sequences():
    assert count("othello-8x8", 6)[0] == [1, 4, 12, 56, 244, 1396, 8200]


def simple_othello(board: dict, own: int, size: int, plies: int) -> int:
    """Sequences of moves, counted cell by cell."""
    if plies == 0:
        return 1

    def turned(row: int, column: int, side: int) -> list:
        found = []
        if board.get((row, column)) is not None:
            return found
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                line, r, c = [], row + down, column + right
                while board.get((r, c)) == -side:
                    line.append((r, c))
                    r, c = r + down, c + right
                found += line if board.get((r, c)) == side else []
        return found

    cells = [(row, column) for row in range(size) for column in range(size)]
    moves = [(cell, line) for cell in cells if (line := turned(*cell, own))]
    if not moves:
        return simple_othello(board, -own, size, plies - 1) if any(turned(*cell, -own) for cell in cells) else 0
    return sum(
        simple_othello({**board, cell: own, **dict.fromkeys(line, own)}, -own, size, plies - 1) for cell, line in moves
    )


def test_small_othello_is_what_a_simple_program_counts():
    start = {(2, 3): 1, (3, 2): 1, (2, 2): -1, (3, 3): -1}
    assert count("othello-6x6", 5)[0] == [simple_othello(start, 1, 6, plies) for plies in range(6)]


def test_passing_and_the_end_of_othello():
    game = open_game("game:othello-6x6")
    stuck = read_position(game, "XO..../....../..XX../..XX../....../...... O").board[None]
    assert game.legal(stuck)[0].nonzero()[0].tolist() == [36] and np.isnan(game.result(stuck))[0]
    assert (game.play(stuck, np.array([36])) == -stuck).all()
    alone = read_position(game, "....../....../..XX../..XX../....../...... O").board[None]
    assert game.result(alone)[0] == -1 and game.result(-alone)[0] == 1
    even = read_position(game, "XXX.../....../..XX../..OO../....../OOO... X").board.copy()
    even[1:, 3:], even[2:4, 2:4] = 0, 0
    assert game.result(even[None])[0] == 0  # three stones each, which never meet


@pytest.mark.parametrize(("case", "name"), [("mcts_tictactoe", "tic-tac-toe"), ("mcts_othello6", "othello-6x6")])
def test_boards_moves_and_symmetries_are_those_of_alpha_zero_general(case, name):
    stored, game = read_golden(GOLDEN / case), open_game(f"game:{name}")
    boards, moves = (stored.computed(key).numpy() for key in ("canonical_boards", "moves"))
    assert (boards[0] == game.start()).all()
    assert (game.legal(boards) == stored.computed("valid_moves").numpy()[:, : game.actions]).all()
    assert (game.play(boards[:-1], moves[:-1]) == boards[1:]).all()
    ended = game.result(game.play(boards[-1:], moves[-1:]))[0]
    assert np.nan_to_num(ended) == round(float(stored.computed("game_ended_for_next_player")))
    policy = stored.computed("pi").numpy()[:, : game.actions]
    theirs = {
        (board.tobytes(), pi[: game.actions].tobytes())
        for board, pi in zip(
            stored.computed("symmetries_boards").numpy(), stored.computed("symmetries_pi").numpy(), strict=True
        )
    }
    cells, actions = game.symmetries
    found = [
        {(board.ravel()[c].tobytes(), pi[a].tobytes()) for c, a in zip(cells, actions, strict=True)}
        for board, pi in zip(boards, policy, strict=True)
    ]
    assert theirs in found


@pytest.mark.parametrize("name", ["tic-tac-toe", "connect-four", "othello-6x6"])
def test_turning_a_board_turns_its_moves(name):
    game, draw = open_game(f"game:{name}"), np.random.default_rng(0)
    board = game.start()[None]
    for _ in range(5):
        board = game.play(board, draw.choice(np.flatnonzero(game.legal(board)[0]), 1))
    for cells, actions in zip(*game.symmetries, strict=True):
        turned = board.reshape(-1)[cells].reshape(board.shape)
        assert (game.legal(turned)[0] == game.legal(board)[0][actions]).all()
        for action in np.flatnonzero(game.legal(turned)[0]):
            direct = game.play(turned, np.array([action]))
            around = game.play(board, actions[[action]]).reshape(-1)[cells].reshape(board.shape)
            assert (direct == around).all()


def test_positions_are_read_from_moves_and_from_boards():
    game = open_game("game:tic-tac-toe")
    moves = read_position(game, "b2, a1 c1")
    assert moves.player == "O" and moves.text() == "O.X/.X./... O"
    assert (read_position(game, moves.text()).board == moves.board).all()
    assert read_position(game, "o.x/.x./...").player == "O"
    assert board_lines(game, moves) == ["   a b c", " 1 O . X", " 2 . X .", " 3 . . ."]
    won = read_position(game, "a1 b1 a2 b2 a3")
    assert won.outcome(game) == "X has won" and read_position(game, "").outcome(game) == ""
    four = open_game("game:connect-four")
    assert read_position(four, "4 4 4").board[2:, 3].tolist() == [0, -1, 1, -1]
    assert read_action(open_game("game:othello-6x6"), "PASS") == 36


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tic-tac-toe", "b2 b2", "move 2: O cannot play b2 here; allowed: a1, b1"),
        ("tic-tac-toe", "b9", "'b9' is no move of tic-tac-toe; expected a1 to c3"),
        ("tic-tac-toe", "a1 b1 a2 b2 a3 b3", "the game is over before move 6, b3: X has won"),
        ("tic-tac-toe", "X.X/.../...", "cannot be: it has 2 stones of one player and 0 of the other, who is to move"),
        ("tic-tac-toe", "XXX/OO./O.. X", "the player to move has already won"),
        ("tic-tac-toe", "X.?/.../...", "has '?' on its board; expected X, O and ."),
        ("tic-tac-toe", "X../...", "expected 3 rows of 3 cells"),
        ("tic-tac-toe", ".../.../... Z", "expected X or O behind the board"),
        ("connect-four", "......./...X.../......./......./......./.......", "a stone hangs in the air"),
        ("connect-four", "8", "expected 1 to 7"),
        ("othello-6x6", "pass", "X cannot play pass here; allowed: c2, b3, e4, d5"),
        ("othello-6x6", "g1", "expected a1 to f6 or pass"),
        ("othello-6x6", "X...../....../..OX../..XO../....../......", "say who is to move"),
        ("othello-6x6", "X...../....../...X../..XO../....../...... X", "one of the four cells in the middle is empty"),
    ],
)
def test_what_is_no_position_is_said_in_one_line(name, text, words):
    with pytest.raises(UsageError) as error:
        read_position(open_game(f"game:{name}"), text)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_game_is_named_with_the_nearest(capsys):
    assert orchard("data", "check", "game:connect-fore") == 2
    assert "unknown game 'connect-fore'; did you mean connect-four?" in capsys.readouterr().err
    with pytest.raises(UsageError, match="expected game:NAME"):
        open_game("gym:Pong")
    assert orchard("data", "check", "game:connect-four") == 0
    assert "four in a row" in capsys.readouterr().out
