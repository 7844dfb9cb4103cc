"""Environments in place of a data set: opening them, their episodes, and going on where one stood."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from orchard.data.environments import Environments, episode_seed
from orchard.data.open_environment import ATARI, make_environment, open_environment
from orchard.errors import OrchardError, UsageError

gymnasium = pytest.importorskip("gymnasium")


class Catch(gymnasium.Env):
    """A ball falls, a paddle moves: frames of 84 x 84 pixels, +1 for a catch, a life less for a miss."""

    observation_space = gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.paddle, self.lives = 3, 2
        self.drop()
        return self.frame(), {"lives": self.lives}

    def drop(self):
        self.ball, self.height = int(self.np_random.integers(7)), 0

    def step(self, action):
        self.paddle = min(max(self.paddle + int(action) - 1, 0), 6)
        self.height += 1
        reward = 0.0
        if self.height == 6:
            caught = abs(self.paddle - self.ball) <= 1
            reward, self.lives = (1.0, self.lives) if caught else (-3.0, self.lives - 1)
            self.drop()
        return self.frame(), reward, self.lives == 0, False, {"lives": self.lives}

    def frame(self):
        pixels = np.zeros((84, 84), np.uint8)
        pixels[12 * self.height : 12 * self.height + 12, 12 * self.ball : 12 * self.ball + 12] = 255
        pixels[72:, 12 * self.paddle : 12 * self.paddle + 12] = 128
        return pixels

    def render(self):
        return np.repeat(self.frame()[:, :, None], 3, 2)


class Forgetful(Catch):
    """Its chance does not come from its seed."""

    entropy = np.random.default_rng(5)

    def drop(self):
        self.ball, self.height = int(self.entropy.integers(7)), 0


class Blind(Catch):
    """It cannot be watched."""

    def __init__(self):
        super().__init__()


class Shy(Catch):
    """It can be asked and gives nothing."""

    def render(self):
        return None


class Steering(Catch):
    """Two real numbers say where the paddle goes, which it keeps to its bounds."""

    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def step(self, action):
        assert action.shape == (2,) and np.abs(action).max() <= 1
        return super().step(1 + round(float(action[0] + action[1]) / 2))


class Typing(Catch):
    action_space = gymnasium.spaces.MultiDiscrete([2, 3])


class Faulty(Catch):
    """It goes wrong at its third step."""

    def step(self, action):
        frame, reward, over, cut, info = super().step(action)
        return self.fault(frame, reward, over, cut, info) if self.height == 3 else (frame, reward, over, cut, info)

    def fault(self, *made):
        raise ZeroDivisionError("no such thing\nas a second line")


class Priceless(Faulty):
    def fault(self, frame, reward, *others):
        return (frame, float("nan"), *others)


class Sleepy(Faulty):
    def fault(self, *made):
        time.sleep(30)
        return made


class Unreal(gymnasium.Env):
    """What is seen of it is no number after a while."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.array([0, np.inf], np.float32), 1.0, False, False, {}


class Widening(Unreal):
    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, False, {}


class OneFrame(Catch):
    """One frame is all that is seen of it, smaller and without a stack."""

    observation_space = gymnasium.spaces.Box(0, 255, (1, 80, 80), np.uint8)

    def frame(self):
        return super().frame()[None, :80, :80]


class Flaky(Unreal):
    """It breaks once `left` steps have been taken, in all of its copies together."""

    left = 10**9

    def step(self, action):
        Flaky.left -= 1
        if Flaky.left < 0:
            raise RuntimeError("the simulator has crashed")
        seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return seen, float(action), bool(self.np_random.random() < 0.1), False, {}


HERE = f"python:{__name__}:Catch"


def test_cartpole_is_described():
    data = open_environment("gym:CartPole-v1")
    assert (data.observation, data.pixels, data.actions, data.solved_at) == ((4,), False, 2, 475.0)
    assert data.fingerprint == open_environment("gym:CartPole-v1").fingerprint
    assert data.fingerprint != open_environment("gym:CartPole-v0").fingerprint


def test_frames_of_one_s_own_are_stacked():
    data = open_environment(HERE)
    assert (data.observation, data.pixels, data.actions, data.solved_at) == ((4, 84, 84), True, 3, None)


def test_a_class_in_the_working_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_game.py").write_text(
        "import gymnasium, numpy as np\n"
        "class Game(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float64)\n"
        "    action_space = gymnasium.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return self.np_random.uniform(-1, 1, 3), {}\n"
        "    def step(self, action):\n"
        "        return self.np_random.uniform(-1, 1, 3), 1.0, False, False, {}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    envs = Environments("python:my_game:Game", 2, 0)
    assert envs.observations.shape == (2, 3) and envs.observations.dtype == np.float32


@pytest.mark.parametrize(
    "source, words",
    [
        ("gym:CartPool-v1", "did you mean CartPole-v1"),
        ("gym:CartPole-v99", "did you mean CartPole-v1"),
        ("CartPole-v1", "expected gym:NAME"),
        ("python:no_such_module:Game", "no module 'no_such_module'"),
        (f"python:{__name__}:Nothing", "has no 'Nothing'"),
        (f"python:{__name__}:Typing", "expected Discrete"),
        ("gym:ALE/NoSuchGame-v5", "unknown environment"),
        (f"python:{__name__}", "expected python:module:Class"),
        ("gym:Blackjack-v1", "expected a vector"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(source, words):
    with pytest.raises(UsageError) as caught:
        make_environment(source)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "absent, source", [("gymnasium", "gym:CartPole-v1"), ("ale_py", "gym:ALE/Pong-v5"), ("cv2", "gym:ALE/Pong-v5")]
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, absent, source):
    if absent == "cv2":
        pytest.importorskip("ale_py")
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(UsageError, match=r"pip install 'orchard\[rl\]'"):
        make_environment(source)


def test_what_cannot_be_drawn_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    for source, words in (
        ("gym:CartPole-v1", "pip install 'orchard[rl]'"),
        (f"python:{__name__}:Shy", "gave NoneType"),
    ):
        with pytest.raises(UsageError) as caught:
            Environments(source, 1, 0, film=True).picture()
        assert words in str(caught.value) and "\n" not in str(caught.value)


def acted(envs: Environments, steps: int, first: int = 0) -> list[tuple]:
    """What comes of actions that are a function of the step."""
    seen = []
    for step in range(first, first + steps):
        actions = np.random.default_rng(step).integers(0, envs.envs[0].action_space.n, len(envs.envs))
        made = envs.step(actions)
        arrays = (made.observations, made.rewards, made.terminated, made.ended, made.lives_lost, envs.observations)
        seen.append((*(array.tobytes() for array in arrays), made.finished))
    return seen


def test_an_episode_is_a_function_of_its_number_and_the_actions():
    envs = Environments("gym:CartPole-v1", 3, seed=7)
    finished = [episode for *_, episodes in acted(envs, 200) for episode in episodes]
    assert len({episode.number for episode in finished}) == len(finished) > 15
    assert all(episode.score == episode.length for episode in finished)  # CartPole gives 1 a step
    for number in (0, 4, 11):
        alone = gymnasium.make("CartPole-v1")
        first, _ = alone.reset(seed=episode_seed(7, number))
        wide = Environments("gym:CartPole-v1", 12, seed=7)
        assert np.array_equal(wide.observations[number], first)
    assert not np.array_equal(Environments("gym:CartPole-v1", 1, seed=8).observations, envs.observations[:1])


def test_what_ended_and_why_is_told_apart():
    envs = Environments("gym:MountainCar-v0", 1, seed=0)  # which nobody solves by doing nothing: 200 steps, then cut
    for step in range(200):
        made = envs.step(np.array([1]))
        assert bool(made.ended[0]) == (step == 199) and not made.terminated[0]
    assert made.finished[0].length == 200 and made.finished[0].score == -200
    assert not np.array_equal(made.observations, envs.observations)  # the last of one episode, the first of the next
    envs = Environments(HERE, 1, seed=0)
    lost = [envs.step(np.array([0])) for _ in range(60)]
    assert sum(bool(made.lives_lost[0]) for made in lost) > sum(bool(made.ended[0]) for made in lost) > 0


@pytest.mark.parametrize("source, count", [("gym:CartPole-v1", 1), ("gym:Acrobot-v1", 2), (HERE, 3)])
@pytest.mark.parametrize("steps", [0, 57])
def test_resumed_environments_go_on_in_the_same_bits(source, count, steps):
    straight, stopped, resumed = (Environments(source, count, seed=3) for _ in range(3))
    acted(straight, steps)
    acted(stopped, steps)
    state = {name: tensor.clone() for name, tensor in stopped.state().items()}
    warnings = []
    resumed.load(state, warnings.append)
    assert np.array_equal(resumed.observations, straight.observations) and not warnings
    assert acted(resumed, 150, first=steps) == acted(straight, 150, first=steps)
    assert all(torch.equal(resumed.state()[name], tensor) for name, tensor in straight.state().items())


def test_an_environment_that_does_not_repeat_itself_begins_a_new_episode_and_says_so():
    source = f"python:{__name__}:Forgetful"
    stopped, resumed = Environments(source, 1, seed=3), Environments(source, 1, seed=3)
    acted(stopped, 20)
    warnings = []
    resumed.load(stopped.state(), warnings.append)
    assert len(warnings) == 1 and "does not repeat an episode" in warnings[0] and "\n" not in warnings[0]
    assert resumed.played == [[]]
    acted(resumed, 30)


@pytest.mark.parametrize("source", ["gym:Pendulum-v1", f"python:{__name__}:Steering"])
def test_real_actions_are_kept_within_their_bounds_and_played_again(source):
    data = open_environment(source)
    assert data.continuous and data.actions == (2 if "Steering" in source else 1)
    straight, resumed = (Environments(source, 2, seed=3) for _ in range(2))
    rng = np.random.default_rng(0)
    moves = rng.normal(0, 3, (40, 2, data.actions)).astype(np.float32)
    for move in moves[:17]:
        straight.step(move)
    resumed.load({name: tensor.clone() for name, tensor in straight.state().items()}, pytest.fail)
    for move in moves[17:]:
        one, other = straight.step(move), resumed.step(move)
        assert np.array_equal(one.observations, other.observations) and np.array_equal(one.rewards, other.rewards)


@pytest.mark.parametrize(
    "kind, words",
    [
        ("Faulty", "step 3 of episode 0 raised ZeroDivisionError: no such thing;"),
        ("Widening", "step 1 of episode 0 has an observation of shape (3,), expected (2,);"),
        ("Priceless", "step 3 of episode 0 has a reward that is not a finite number"),
        ("Sleepy", "a step took longer than 0.2 s"),
        ("Unreal", "step 1 of episode 0 has an observation that is not a finite number"),
    ],
)
def test_an_environment_that_goes_wrong_is_named_with_the_step(kind, words):
    envs = Environments(f"python:{__name__}:{kind}", 1, seed=0, step_seconds=0.2)
    with pytest.raises(OrchardError) as caught:
        for _ in range(3):
            envs.step(np.array([1]))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_pong_is_lit_pixels_as_in_deepchem_s_tutorial_and_grey_as_gymnasium_has_it():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    from orchard.data.pong_frames import PongFrames

    ale = pytest.importorskip("ale_py")
    gymnasium.register_envs(ale)
    golden = Path(__file__).parent / "golden" / "pong"
    stored = load_file(golden / "deepchem_tutorial" / "io.safetensors")
    env = PongFrames(gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0))
    env.reset(seed=8)
    states = np.stack([env.step(int(action))[0][0] for action in stored["in.actions"]])
    assert np.array_equal((states > 0).sum((1, 2)), stored["out.state_sums"].numpy())
    kept = np.packbits(states[stored["out.keep"].numpy()] > 0, axis=-1)
    assert np.array_equal(kept, stored["out.states_packed"].numpy())
    stored = load_file(golden / "atari_preprocessing" / "io.safetensors")
    game = gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0)
    grey = gymnasium.wrappers.AtariPreprocessing(game, **{**ATARI, "noop_max": 0})
    frames = [grey.reset(seed=7)[0]] + [grey.step(int(action))[0] for action in stored["in.actions"]]
    assert [int(frame.sum()) for frame in frames] == stored["out.observation_sums"].tolist()
    assert np.array_equal(frames[-1], stored["out.observations"][0].numpy())
    data = open_environment("gym:ALE/Pong-v5", view="pong")
    assert (data.observation, data.frames, data.pixels) == ((1, 80, 80), 1, True)


def test_pong_is_preprocessed_as_in_the_papers_and_resumes_in_the_same_bits():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    data = open_environment("gym:ALE/Pong-v5")
    assert (data.observation, data.pixels, data.actions) == ((4, 84, 84), True, 6)
    assert data.action_names[:2] == ("NOOP", "FIRE")
    straight, resumed = (Environments("gym:ALE/Pong-v5", 1, seed=1) for _ in range(2))
    acted(straight, 40)
    warnings = []
    resumed.load({name: tensor.clone() for name, tensor in straight.state().items()}, warnings.append)
    assert acted(resumed, 30, first=40) == acted(straight, 30, first=40) and not warnings
