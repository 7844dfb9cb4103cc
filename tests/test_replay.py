"""The replay buffer: what it holds, what it draws, and that a checkpoint of it is the buffer."""

import numpy as np
import pytest
import torch

from orchard.errors import OrchardError
from orchard.tasks.reinforcement_learning.replay import ReplayBuffer, n_step_returns

GAMMA = 0.9


def test_n_step_returns_by_hand():
    rewards = np.array([[1.0, 2.0, 4.0]] * 4)
    terminated = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], bool)
    last = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], bool)  # episode 2 ran out of time after a step
    returns, discounts, steps = n_step_returns(rewards, terminated, last, 0.5)
    assert returns.tolist() == [1 + 1 + 1, 1 + 1, 1, 1]
    assert discounts.tolist() == [0.125, 0.0, 0.5, 0.0]
    assert steps.tolist() == [3, 2, 1, 1]


def lived(steps: int, environments: int, lengths: tuple[int, ...], shape: tuple[int, ...], frames: int, seed: int = 0):
    """Lives of agents, step by step, with every whole observation; lengths of episodes come in turn.

    Returns what `add` takes at each step and, for each environment, all transitions in order.
    """
    rng = np.random.default_rng(seed)
    fresh = lambda: rng.integers(0, 256, shape[1:] if frames > 1 else shape, np.uint8)  # noqa: E731
    first = lambda: np.stack([fresh()] * frames) if frames > 1 else fresh()  # noqa: E731
    push = lambda now, frame: np.concatenate([now[1:], frame[None]]) if frames > 1 else frame  # noqa: E731
    now, age, episode = [first() for _ in range(environments)], [0] * environments, [0] * environments
    calls, history = [], [[] for _ in range(environments)]
    for _ in range(steps):
        actions, rewards = rng.integers(0, 5, environments), rng.standard_normal(environments).astype(np.float32)
        after = [push(seen, fresh()) for seen in now]
        ended, terminated = np.zeros(environments, bool), np.zeros(environments, bool)
        for n in range(environments):
            age[n] += 1
            ended[n] = age[n] == lengths[(episode[n] + n) % len(lengths)]
            terminated[n] = ended[n] and episode[n] % 2 == 0  # every other episode runs out of time
            history[n].append((now[n], actions[n], rewards[n], terminated[n], ended[n], after[n]))
        calls.append((np.stack(now), actions, rewards, terminated, ended, np.stack(after)))
        for n in range(environments):
            now[n] = first() if ended[n] else after[n]
            age[n], episode[n] = (0, episode[n] + 1) if ended[n] else (age[n], episode[n])
    return calls, history


def expected(history, n_step: int):
    """Every transition of a life as (observation, action, return, discount, next observation), the plain way."""
    for start in range(len(history)):
        ends = [n for n in range(start, min(start + n_step, len(history))) if history[n][4]]
        final = ends[0] if ends else start + n_step - 1
        if final >= len(history):
            continue
        total = sum(GAMMA**n * step[2] for n, step in enumerate(history[start : final + 1]))
        *_, terminated, _, after = history[final]
        yield *history[start][:2], total, 0.0 if terminated else GAMMA ** (final + 1 - start), after


@pytest.mark.parametrize("frames, environments, n_step", [(1, 1, 1), (4, 1, 1), (1, 3, 3), (4, 2, 3), (2, 3, 1)])
@pytest.mark.parametrize("capacity", [1000, 60])
def test_every_draw_is_a_transition_that_happened(frames, environments, n_step, capacity):
    shape = (frames, 3, 2) if frames > 1 else (5,)
    calls, histories = lived(150, environments, (1, 4, 9, 2), shape, frames)
    buffer = ReplayBuffer(capacity, shape, np.uint8, frames=frames, environments=environments)
    for call in calls:
        buffer.add(*call)
    drawn = buffer.sample(600, 0, 1, gamma=GAMMA, n_step=n_step)
    known = {}
    for history in histories:
        for observation, action, total, discount, after in expected(history, n_step):
            known[observation.tobytes(), int(action), round(float(total), 4)] = discount, after
    kinds = set()
    for n in range(600):
        key = drawn.observations[n].numpy().tobytes(), int(drawn.actions[n]), round(float(drawn.rewards[n]), 4)
        discount, after = known[key]
        kinds.add(round(discount, 4))
        assert float(drawn.discounts[n]) == pytest.approx(discount, abs=1e-6)
        if discount:
            assert np.array_equal(drawn.next_observations[n].numpy(), after)
    assert {0.0, round(GAMMA, 4)} <= kinds  # both ends of an episode were among them


def test_the_newest_replace_the_oldest_and_all_that_is_left_is_drawn():
    buffer = ReplayBuffer(50, (1,), np.float32)
    for n in range(180):
        over = np.array([n % 10 == 9])
        buffer.add(
            np.array([[n]], np.float32), np.zeros(1, np.int64), np.zeros(1, np.float32), over, over, np.zeros((1, 1))
        )
    drawn = buffer.sample(2000, 3, 0, gamma=GAMMA).observations.flatten()
    counts = np.bincount(drawn.numpy().astype(int), minlength=180)
    alive = np.flatnonzero(counts)
    assert alive.min() >= 180 - 50 and alive.max() == 179 and len(alive) >= 44
    assert counts[alive].max() < 3 * counts[alive].min()  # uniform, as far as 2000 draws can tell


def test_draws_depend_on_seed_and_step_alone():
    calls, _ = lived(80, 2, (5, 7), (3,), 1)
    buffer = ReplayBuffer(100, (3,), np.uint8, environments=2)
    for call in calls:
        buffer.add(*call)
    first, again = (buffer.sample(16, 1, 5, gamma=GAMMA) for _ in range(2))
    assert torch.equal(first.observations, again.observations)
    assert not torch.equal(first.observations, buffer.sample(16, 1, 6, gamma=GAMMA).observations)
    assert not torch.equal(first.observations, buffer.sample(16, 2, 5, gamma=GAMMA).observations)


@pytest.mark.parametrize("steps", [0, 13, 90])
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_what_is_loaded_goes_on_as_what_was_saved(steps, alpha):
    calls, _ = lived(steps + 40, 2, (5, 3), (4, 2, 2), 4)
    buffers = [ReplayBuffer(60, (4, 2, 2), np.uint8, frames=4, environments=2, alpha=alpha) for _ in range(2)]
    for call in calls[:steps]:
        buffers[0].add(*call)
    state = {name: tensor.clone() for name, tensor in buffers[0].state().items()}
    assert state["seen"].shape[1] <= 30
    buffers[1].load(state)
    for call in calls[steps:]:
        for buffer in buffers:
            buffer.add(*call)
    one, other = (buffer.sample(64, 0, 9, gamma=GAMMA) for buffer in buffers)
    assert all(torch.equal(vars(one)[name], vars(other)[name]) for name in vars(one))
    assert all(torch.equal(buffers[1].state()[name], tensor) for name, tensor in buffers[0].state().items())


def test_too_little_and_other_forms_are_refused_in_one_line():
    buffer = ReplayBuffer(60, (3,), np.uint8)
    for count in range(2):
        with pytest.raises(OrchardError, match=f"holds {count} steps, too few"):
            buffer.sample(4, 0, 0, gamma=GAMMA)
        buffer.add(*lived(1, 1, (9,), (3,), 1)[0][0])
    for other in (ReplayBuffer(60, (4,), np.uint8), ReplayBuffer(60, (3,), np.uint8, environments=2)):
        with pytest.raises(OrchardError, match="must be as they were"):
            other.load(buffer.state())


def test_what_surprised_is_drawn_more_often_and_weighs_less():
    calls, _ = lived(70, 2, (5, 9), (4, 2, 2), 4)
    buffer = ReplayBuffer(60, (4, 2, 2), np.uint8, frames=4, environments=2, alpha=0.5)
    for call in calls:
        buffer.add(*call)
    drawn = buffer.sample(4000, 0, 0, gamma=GAMMA, n_step=2, beta=0.5)
    uniform = ReplayBuffer(60, (4, 2, 2), np.uint8, frames=4, environments=2)
    for call in calls:
        uniform.add(*call)
    same = uniform.sample(4000, 0, 0, gamma=GAMMA, n_step=2)
    assert set(drawn.rows.tolist()) == set(same.rows.tolist())  # whatever can be drawn, and nothing else
    assert (drawn.weights == 1).all() and (same.weights == 1).all()  # all are new
    counts = np.bincount(drawn.rows, minlength=60)
    assert counts[counts > 0].max() - counts[counts > 0].min() <= 2  # a row from each of as many equal parts
    rows = np.flatnonzero(counts)
    errors = np.where(np.arange(len(rows)) == 3, 4.0, 0.25)
    buffer.priorities.update(rows, errors)
    again = buffer.sample(4000, 0, 1, gamma=GAMMA, n_step=2, beta=0.5)
    often = np.bincount(again.rows, minlength=60)[rows]
    assert often[3] / np.delete(often, 3).mean() == pytest.approx(4, rel=0.05)  # the root of 16
    weights = again.weights[again.rows == int(rows[3])]
    assert weights.numpy() == pytest.approx(0.5, rel=1e-4)  # (4)^-0.5, where the others have 1
    by_row = {int(row): reward for row, reward in zip(same.rows, same.rewards, strict=True)}
    assert all(reward == by_row[int(row)] for row, reward in zip(again.rows, again.rewards, strict=True))
    buffer.add(*lived(1, 2, (9,), (4, 2, 2), 4)[0][0])
    assert buffer.priorities.raised.max() == pytest.approx(2.0, rel=1e-5)  # the newest have the largest so far
