"""DQN: the network, what it learns from, and how often it explores, against CleanRL and by hand."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.tasks.reinforcement_learning.exploration import epsilon_at
from orchard.tasks.reinforcement_learning.losses import (
    clipped_error,
    double_value,
    greatest_value,
    squared_error,
    td_targets,
    values_of,
)
from orchard.weights.golden import read_golden
from orchard.weights.official import export_official, load_official, read_official

GOLDEN = Path(__file__).parent / "golden" / "dqn"


@pytest.fixture(scope="module", params=["cleanrl_atari", "cleanrl_vector_a", "cleanrl_vector_b"])
def case(request):
    """What CleanRL computed, and our network and target network with its weights."""
    stored = read_golden(GOLDEN / request.param)
    meta, io = stored.meta, dict(stored.tensors)
    if request.param == "cleanrl_atari":
        for name in ("in.observations", "in.next_observations"):
            io[name] = io.pop(f"{name}_21").repeat_interleave(4, 2).repeat_interleave(4, 3)
        states = [
            {name.removeprefix(which): tensor for name, tensor in stored.state.items() if name.startswith(which)}
            for which in ("q.", "target.")
        ]
        name, shape = "dqn", {}
    else:
        states = [stored.state, load_file(GOLDEN / request.param / "target.safetensors")]
        name, shape = "dqn_nano", {key: meta["args"][key] for key in ("observation", "actions")}
    network, target = create_model(name, **shape), create_model(name, **shape)
    load_official(network, states[0], "cleanrl")
    load_official(target, states[1], "cleanrl")
    return {key.replace("grad.q.", "grad."): tensor for key, tensor in io.items()}, network, target


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return found.shape == expected.shape and bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def test_values_targets_loss_and_gradients_are_cleanrl_s(case):
    io, network, target = case
    found = network(io["in.observations"])
    assert close(found, io["out.q_values"])
    discounts = 0.99 * (1 - io["in.dones"].flatten())
    next_values = greatest_value(network, target, io["in.next_observations"])
    targets = td_targets(io["in.rewards"].flatten(), discounts, next_values)
    values = values_of(found, io["in.actions"].flatten())
    assert close(targets, io["out.td_target"]) and close(values, io["out.old_val"])
    loss = squared_error(values, targets)
    assert close(loss, io["out.loss"])
    loss.backward()
    assert not targets.requires_grad and all(parameter.grad is None for parameter in target.parameters())
    carrier = copy.deepcopy(network)
    carrier.load_state_dict({name: parameter.grad for name, parameter in network.named_parameters()})
    gradients = export_official(carrier, "cleanrl")
    stored = [name for name in io if name.startswith("out.grad.")]
    assert len(stored) >= 2
    assert all(close(gradients[name.removeprefix("out.grad.")], io[name], 1e-3) for name in stored)


def test_double_targets_and_clipped_error_are_those_of_the_stored_case(case):
    io, network, target = case
    if "out.double_td_target_restated" not in io:
        pytest.skip("the vector cases store CleanRL's own lines only")
    rewards, discounts = io["in.rewards"].flatten(), 0.99 * (1 - io["in.dones"].flatten())
    with torch.no_grad():
        targets = td_targets(rewards, discounts, double_value(network, target, io["in.next_observations"]))
        values = values_of(network(io["in.observations"]), io["in.actions"].flatten())
    assert close(targets, io["out.double_td_target_restated"])
    assert close(clipped_error(values, io["out.td_target"]), io["out.huber_loss_restated"])


def test_epsilon_is_cleanrl_s_schedule(case):
    io = case[0]
    if "out.epsilon_schedule" in io:
        found = [epsilon_at(step, 1.0, 0.01, 1000) for step in (0, 250, 500, 999, 1000, 5000)]
        assert found == pytest.approx(io["out.epsilon_schedule"].tolist(), abs=1e-12)
    assert epsilon_at(10, 0.1, 0.1, 100) == epsilon_at(10**9, 1.0, 0.1, 10**6) == 0.1


def test_errors_by_hand():
    values = torch.tensor([0.0, 1.0, -3.0, 2.0], requires_grad=True)
    targets = torch.tensor([0.5, 1.0, 1.0, -1.0])
    assert squared_error(values, targets).item() == pytest.approx((0.25 + 0 + 16 + 9) / 4)
    clipped = clipped_error(values, targets)
    assert clipped.item() == pytest.approx((0.125 + 0 + 3.5 + 2.5) / 4)
    (gradient,) = torch.autograd.grad(clipped, values)
    assert (4 * gradient).tolist() == [-0.5, 0.0, -1.0, 1.0]  # the temporal difference, clipped to ±1


def test_double_values_do_not_trust_the_maximum():
    class Table(torch.nn.Module):
        def __init__(self, *rows):
            super().__init__()
            self.rows = torch.tensor(rows)

        def forward(self, observations):
            return self.rows

    network, target, observations = Table([1.0, 2.0], [5.0, 4.0]), Table([7.0, 3.0], [1.0, 9.0]), torch.zeros(2, 1)
    assert greatest_value(network, target, observations).tolist() == [7.0, 9.0]
    assert double_value(network, target, observations).tolist() == [3.0, 1.0]
    found = td_targets(torch.tensor([1.0, 2.0]), torch.tensor([0.9, 0.0]), torch.tensor([10.0, float("1e9")]))
    assert found.tolist() == [10.0, 2.0]  # what comes after a terminal state counts nothing


def test_bytes_and_floats_of_a_frame_are_the_same():
    network = create_model("dqn_2013").eval()
    frames = torch.randint(256, (2, 4, 84, 84), dtype=torch.uint8)
    assert torch.equal(network(frames), network(frames / 255))


def test_sizes_that_do_not_fit_are_refused():
    for name, overrides, words in (
        ("dqn", {"observation": (84, 84)}, "(frames, H, W)"),
        ("dqn", {"observation": (4, 20, 20)}, "too small"),
        ("dqn", {"kernels": (8, 4)}, "as many of each"),
        ("dqn_nano", {"actions": 0}, "1 or more"),
    ):
        with pytest.raises(UsageError, match=words.replace("(", r"\(").replace(")", r"\)")):
            create_model(name, **overrides)


def test_sb3_file_goes_in_with_its_own_sizes_and_without_its_target():
    """Names and shapes as Stable-Baselines3 2.x writes policy.pth of MlpPolicy and CnnPolicy."""
    theirs = {}
    for network in ("q_net", "q_net_target"):
        for number, shape in ((0, (64, 8)), (2, (64, 64)), (4, (3, 64))):
            theirs[f"{network}.q_net.{number}.weight"] = torch.randn(shape)
            theirs[f"{network}.q_net.{number}.bias"] = torch.randn(shape[0])
    official = read_official("dqn_nano", theirs, "sb3", {})
    config = official.model.config
    assert (config.observation, config.hidden, config.actions) == ((8,), (64, 64), 3)
    assert len(official.ignored) == 6 and all(name.startswith("q_net_target.") for name in official.ignored)
    kept = {name: tensor for name, tensor in theirs.items() if name not in official.ignored}
    back = export_official(official.model, "sb3")
    assert back.keys() == kept.keys() and all(torch.equal(back[name], kept[name]) for name in kept)
    names = export_official(create_model("dqn"), "sb3").keys()
    parts = [f"features_extractor.cnn.{n}" for n in (0, 2, 4)] + ["features_extractor.linear.0", "q_net.0"]
    assert names == {f"q_net.{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    with pytest.raises(OrchardError, match="left over"):
        load_official(
            create_model("dqn_nano", observation=(8,), hidden=(64, 64), actions=3),
            theirs | {"x": kept["q_net.q_net.4.bias"]},
            "sb3",
        )
