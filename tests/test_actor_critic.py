"""Actor-critics: advantages, losses and choices, against CleanRL, DeepChem and by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, Normal

from orchard.errors import UsageError
from orchard.models import create_model
from orchard.tasks.reinforcement_learning.on_policy import judge
from orchard.tasks.reinforcement_learning.policy_agent import decide, draw, likeliest
from orchard.tasks.reinforcement_learning.policy_losses import a2c_terms, ppo_terms, released_a2c_terms
from orchard.tasks.reinforcement_learning.proofs import cleanrl_losses
from orchard.tasks.reinforcement_learning.returns import generalised_advantages
from orchard.tasks.reinforcement_learning.rollouts import Experience, Rollout, normalised, pick_sequences, pick_steps
from orchard.tasks.reinforcement_learning.settings import PolicySettings
from orchard.weights.adapters.cleanrl_ppo import ADAPTER
from orchard.weights.golden import read_golden
from orchard.weights.official import export_official, load_official, read_official

GOLDEN = Path(__file__).parent / "golden" / "actor_critic"


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return found.shape == expected.shape and bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def test_advantages_are_cleanrl_s():
    io = read_golden(GOLDEN / "ppo_atari").tensors
    values, ended = io["in.values"].numpy(), torch.cat([io["in.dones"][1:], io["in.next_done"][None]]).numpy() > 0
    after = np.concatenate([values[1:], io["out.next_value"].numpy()])
    found = generalised_advantages(io["in.rewards"].numpy(), values, after, ended, ended, gamma=0.99, decay=0.95)
    assert ended.any() and close(torch.from_numpy(found), io["out.advantages"])
    assert close(torch.from_numpy(found + values), io["out.returns"])


def test_an_episode_that_was_cut_goes_on_in_the_critic_s_mind():
    column = lambda *values: np.array(values)[:, None]  # noqa: E731
    rewards, values, after = column(1.0, 2.0, 4.0), column(0.5, 0.5, 0.5), column(0.5, 8.0, 3.0)
    cut, end = column(False, True, False), column(False, False, True)
    found = generalised_advantages(rewards, values, after, end, cut | end, gamma=0.5, decay=1.0).ravel()
    assert found.tolist() == [1 + 0.5 * (2 + 0.5 * 8) - 0.5, 2 + 0.5 * 8 - 0.5, 4 - 0.5]
    one_step = generalised_advantages(rewards, values, after, end, cut | end, gamma=0.5, decay=0.0).ravel()
    assert one_step.tolist() == [0.75, 5.5, 3.5]


@pytest.mark.parametrize(
    "case, settings",
    [
        ("ppo_atari", PolicySettings(clip=0.1, clip_values=True, value_weight=0.25)),
        ("ppo_atari_plain_value", PolicySettings(clip=0.2, value_weight=0.25, normalise_advantages=False)),
    ],
)
def test_ppo_s_terms_and_gradients_are_cleanrl_s(case, settings):
    stored = ADAPTER.stored(read_golden(GOLDEN / case))
    network = create_model("ppo")
    load_official(network, stored.state, "cleanrl")
    names = ("observations", "actions", "log_probabilities", "old_values", "flat_advantages", "flat_returns")
    found = cleanrl_losses(network, *(stored.given(name) for name in names), settings)
    for ours, theirs in (("policy", "pg_loss"), ("value", "v_loss"), ("entropy", "entropy_loss"), ("loss", "loss"),
                         ("kl", "approx_kl"), ("clipped", "clipfrac")):  # fmt: skip
        assert found[ours].item() == pytest.approx(stored.tensors[f"out.ppo.{theirs}"].item(), rel=1e-5, abs=1e-7)
    found["loss"].backward()
    assert close(network.policy.weight.grad, stored.tensors["out.grad.actor.weight"])
    assert close(network.value.weight.grad, stored.tensors["out.grad.critic.weight"])


def test_a_rollout_of_deepchem_s_is_processed_as_released_and_as_meant():
    io = read_golden(GOLDEN / "deepchem_a2c").tensors
    count, gamma = len(io["in.rewards"]), 0.99
    rollout = Rollout(count, np.zeros((1, 2), np.float32), np.zeros(1, np.int64), 0)
    rollout.rewards[:, 0], rollout.values[:, 0] = io["in.rewards"], io["in.values"][:-1]
    rollout.next_values[:, 0] = io["in.values"][1:]
    rollout.next_values[-1, 0] /= gamma  # theirs is discounted already
    settings = PolicySettings(loss="a2c_released", gae_lambda=0.98, value_target="discounted")
    released = rollout.experience(gamma, settings)
    assert close(released.returns[:, 0], io["out.discounted_rewards"])
    assert close(released.advantages[:, 0], io["out.advantages"])
    meant = rollout.experience(gamma, settings.model_copy(update={"loss": "a2c"}))
    assert torch.equal(meant.returns, released.returns)
    twice = gamma * (gamma - 1) * rollout.next_values[-1, 0]
    assert (released.advantages - meant.advantages)[-1, 0].item() == pytest.approx(twice, rel=1e-4)


def steps(count: int, actions: torch.Tensor, units: int = 0) -> Experience:
    """Steps with numbers of their own, of a policy that was uniform over two actions."""
    told = torch.arange(1.0, count + 1)
    began, memory = torch.zeros(count, dtype=torch.bool), torch.zeros(count, units)
    return Experience(
        torch.zeros(count, 4), actions, torch.full((count,), -math.log(2)), told, told, -told, began, memory
    )


def test_losses_by_hand():
    from orchard.tasks.reinforcement_learning.policy_losses import Judged

    batch = steps(2, torch.tensor([0, 1]))  # advantages 1, 2; returns -1, -2; values before 1, 2
    now = Judged(torch.log(torch.tensor([0.75, 0.4])), torch.zeros(2), torch.tensor([1.5, 1.9]))
    plain = a2c_terms(now, batch, PolicySettings())
    assert plain.policy.item() == pytest.approx(-(math.log(0.75) + 2 * math.log(0.4)) / 2)
    assert plain.value.item() == pytest.approx((2.5**2 + 3.9**2) / 2)
    pairs = released_a2c_terms(now, batch, PolicySettings())
    assert pairs.policy.item() == pytest.approx(-1.5 * (math.log(0.75) + math.log(0.4)) / 2)
    assert pairs.value.item() == pytest.approx((2.5**2 + 2.9**2 + 3.5**2 + 3.9**2) / 4)
    clipped = ppo_terms(now, batch, PolicySettings(clip=0.2, clip_values=True))
    assert clipped.policy.item() == pytest.approx(-(1.2 * 1 + 0.8 * 2) / 2)  # 1.5 is too far, 0.8 is not
    assert clipped.value.item() == pytest.approx((2.5**2 + 3.9**2) / 2) and clipped.figures["clipped"] == 0.5
    moved = replace(batch, returns=torch.tensor([3.0, 3.0]))  # held to 1.2 the first value is worse than it is
    assert ppo_terms(now, moved, PolicySettings(clip_values=True)).value.item() == pytest.approx((1.8**2 + 1.1**2) / 2)
    scaled = normalised(batch).advantages
    assert scaled.mean().item() == pytest.approx(0, abs=1e-6) and scaled.std().item() == pytest.approx(1, abs=1e-6)


def test_a_sequence_is_what_its_steps_are_and_forgets_where_an_episode_begins():
    torch.manual_seed(0)
    network = create_model("a2c_pong", actions=3).double()
    seen = torch.rand(2, 5, 1, 80, 80, dtype=torch.float64)
    memory, began = torch.randn(2, 16, dtype=torch.float64), torch.zeros(2, 5, dtype=torch.bool)
    began[1, 2] = True
    whole = network.unroll(seen, memory, began)
    for step in range(5):
        memory = memory * ~began[:, step, None]
        one = network(seen[:, step], memory)
        memory = one.memory
        assert torch.allclose(one.values, whole.values.view(2, 5)[:, step])
        assert torch.allclose(one.policy, whole.policy.view(2, 5, 3)[:, step])
    assert torch.allclose(memory, whole.memory)
    with pytest.raises(UsageError, match="memory needs an observer"):
        create_model("a2c_nano", memory=4)


def test_steps_and_sequences_are_picked_with_all_that_belongs_to_them():
    rollout = Rollout(3, np.zeros((2, 4), np.float32), np.zeros(2, np.int64), 5)
    rollout.rewards[:] = rollout.values[:] = np.arange(6).reshape(3, 2)
    rollout.observations[:] = np.arange(6).reshape(3, 2, 1)
    rollout.memory[:] = np.arange(2)[:, None]
    taken = rollout.experience(0.9, PolicySettings())
    flat = pick_steps(taken, np.array([5, 0, 2]))
    assert flat.values.tolist() == flat.observations[:, 0].tolist() == [5, 0, 2] and flat.memory.shape == (3, 0)
    rows = pick_sequences(taken, np.array([1, 0]))
    assert rows.values.tolist() == [[1, 3, 5], [0, 2, 4]] and rows.memory[:, 0].tolist() == [1, 0]
    assert len(rows.parts(2)) == 2 and rows.parts(2)[0].observations.shape == (1, 3, 4)


def test_numbered_actions_are_drawn_as_often_as_the_policy_says():
    torch.manual_seed(0)
    network = create_model("ppo_nano", actions=3)
    torch.nn.init.normal_(network.policy.bias)
    decision = decide(network, np.zeros((9000, 4), np.float32), None)
    actions, log_probabilities = draw(decision, np.random.default_rng(0).random((9000, 1)))
    share = np.bincount(actions, minlength=3) / 9000
    assert np.abs(share - np.exp(decision.policy[0].numpy())).max() < 0.02
    assert np.allclose(log_probabilities, Categorical(logits=decision.policy).log_prob(torch.from_numpy(actions)))
    assert torch.allclose(decision.entropy(), Categorical(logits=decision.policy).entropy())
    assert (likeliest(decision) == share.argmax()).all()
    assert draw(decision, np.full((9000, 1), 1 - 2.0**-53))[0].max() <= 2


def test_real_actions_are_drawn_from_their_normal_distribution():
    network = create_model("ppo_continuous", actions=2)
    with torch.no_grad():
        network.log_std.copy_(torch.tensor([-1.0, 0.5]))
    decision = decide(network, np.ones((9000, 3), np.float32), None)
    actions, log_probabilities = draw(decision, np.random.default_rng(0).random((9000, 2)))
    assert actions.dtype == log_probabilities.dtype == np.float32
    assert np.abs(actions.std(0) - np.exp([-1.0, 0.5])).max() < 0.05
    assert np.abs(actions.mean(0) - likeliest(decision)[0]).max() < 0.05
    chosen = Independent(Normal(decision.policy, decision.log_std.exp()), 1)
    assert np.allclose(log_probabilities, chosen.log_prob(torch.from_numpy(actions)), atol=1e-5)
    batch = steps(9000, torch.from_numpy(actions))
    now = judge(network, replace(batch, observations=torch.ones(9000, 3)))
    entropy = chosen.entropy()[0].item()
    assert np.allclose(log_probabilities, now.log_probabilities.detach(), atol=1e-5)
    assert now.entropies.mean().item() == pytest.approx(entropy, rel=1e-5)


def test_networks_with_separate_heads_take_cleanrl_s_and_sb3_s_files():
    """Names and shapes as CleanRL 1.0 (ppo_continuous_action.py) and Stable-Baselines3 2.x (MlpPolicy) write them."""
    torch.manual_seed(0)
    linear = {0: (64, 3), 2: (64, 64)}
    parts = {f"{tower}.{n}": shape for tower in ("actor_mean", "critic") for n, shape in linear.items()}
    parts |= {"actor_mean.4": (1, 64), "critic.4": (1, 64)}
    theirs = {f"{part}.weight": torch.randn(shape) for part, shape in parts.items()}
    theirs |= {f"{part}.bias": torch.randn(shape[0]) for part, shape in parts.items()}
    theirs["actor_logstd"] = torch.randn(1, 1)
    network = read_official("ppo_continuous", theirs, "cleanrl", {}).model
    x = torch.randn(5, 3)

    def tower(name: str) -> torch.Tensor:
        out = x
        for n in (0, 2, 4):
            out = torch.nn.functional.linear(out, theirs[f"{name}.{n}.weight"], theirs[f"{name}.{n}.bias"])
            out = out.tanh() if n < 4 else out
        return out

    found = network(x)
    assert close(found.policy, tower("actor_mean")) and close(found.values, tower("critic")[:, 0])
    assert torch.equal(found.log_std, theirs["actor_logstd"][0])
    back = export_official(network, "cleanrl")
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())
    names = export_official(create_model("a2c_nano"), "sb3").keys()
    layers = [f"mlp_extractor.{net}.{n}" for net in ("policy_net", "value_net") for n in (0, 2)]
    assert names == {f"{one}.{kind}" for one in [*layers, "action_net", "value_net"] for kind in ("weight", "bias")}


def test_a_duelling_head_is_the_value_and_how_each_action_differs_from_the_mean():
    torch.manual_seed(0)
    network = create_model("dqn_duelling_nano", actions=3)
    seen = torch.randn(6, 4)
    features = network.read(seen)
    value, advantage = network.head.value(features), network.head.advantage(features)
    found = network(seen)
    assert torch.allclose(found.mean(1, keepdim=True), value, atol=1e-6)
    assert torch.allclose(found - found[:, :1], advantage - advantage[:, :1], atol=1e-6)
