"""Agents that learn from what they have just done: through the same commands, in the same bits after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from log_lines import log_lines
from safetensors.torch import load_file
from test_environments import HERE

from orchard.app.answer import answer
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.open_environment import open_environment
from orchard.errors import OrchardError, UsageError
from orchard.models import create_model
from orchard.tasks.reinforcement_learning.rollout_feed import RolloutFeed
from orchard.tasks.reinforcement_learning.settings import Settings

pytest.importorskip("gymnasium")
CARTPOLE = "gym:CartPole-v1"
SHORT = {
    "epochs": 2,
    "batch_size": 16,
    "checkpoint_steps": 3,
    "log_every": 4,
    "reinforcement.environments": 4,
    "reinforcement.evaluate_every": 64,
    "reinforcement.validation_episodes": 3,
    "reinforcement.test_episodes": 4,
    "policy.rollout_steps": 8,
    "policy.passes": 2,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train("ppo_nano", CARTPOLE, out, **SHORT)["steps"] == 16  # 2 epochs of 2 rollouts, 4 updates of each
    return out


def test_run_says_what_the_policy_did(run: Path) -> None:
    rows = log_lines(run)
    assert {"policy_loss", "value_loss", "entropy", "kl", "clipped", "training_return"} <= rows[0].keys()
    assert float(rows[0]["entropy"]) == pytest.approx(np.log(2), abs=0.01)  # at first it knows nothing
    page = (run / "report.html").read_text()
    assert all(words in page for words in ("Entropy", "Change of the policy", "value of the state", "greedy"))
    assert "Epsilon" not in page and "data:image/gif;base64," in page
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["parameters"] == 9155 and metrics["test"]["mean_return"] >= 8


def test_stopped_in_the_middle_of_a_rollout_it_ends_in_the_same_bits(run: Path, tmp_path: Path) -> None:
    """Step 6 is the second of its rollout: what was done before the stop is still to be learned from."""

    class Stop:
        def on_step(self, moment: object) -> None:
            if moment.step == 7:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train("ppo_nano", CARTPOLE, out, callbacks=[Stop()], **SHORT)
    train("ppo_nano", CARTPOLE, out, **SHORT)
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (run, out))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert log_lines(out) == log_lines(run)


def test_a_policy_plays_and_is_filmed(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    first, _ = (one.to_json() for one in answer(run, [], {"episodes": 2, "out": tmp_path / "film.gif"}))
    assert (tmp_path / "film.gif").stat().st_size > 1000
    assert pipeline(run)(1)[0].score == first["return"]
    with pytest.raises(UsageError, match="1 numbers in an action"):
        list(answer(run, ["gym:Pendulum-v1"], {}))


def feed_of(model: str, source: str, **settings: object) -> RolloutFeed:
    network = create_model(
        model, **({"actions": 3, "channels": (4, 4), "hidden": (16,)} if model == "a2c_pong" else {})
    )
    policy = {key: value for key, value in settings.items() if key in ("rollout_steps", "passes")}
    table = {key: value for key, value in settings.items() if key not in (*policy, "batch_size")}
    whole = Settings(
        model=model, data={"source": source}, batch_size=settings.get("batch_size", 8), seed=3, reinforcement=table,
        policy=policy,
    )  # fmt: skip
    return RolloutFeed(network, open_environment(source), whole)


def test_a_memory_goes_from_rollout_to_rollout_and_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a game of one's own whose frames are not stacked: the network remembers instead."""
    source = HERE.replace("Catch", "OneFrame")
    torch.manual_seed(0)
    how = {"environments": 2, "rollout_steps": 5, "batch_size": 5, "passes": 2}
    straight = feed_of("a2c_pong", source, **how)
    resumed = feed_of("a2c_pong", source, **how)
    resumed.network.load_state_dict(straight.network.state_dict())
    batches = straight.batches(0)
    for _ in range(10):
        (batch,) = next(batches)
        assert batch.observations.shape == (1, 5, 1, 80, 80) and batch.memory.shape == (1, 16)
    assert straight.taken == 30 and batch.memory.abs().max() > 0
    resumed.load({name: tensor.clone() for name, tensor in straight.state().items()})
    again = resumed.batches(10)
    began = False
    for _ in range(20):
        (one,), (other,) = next(batches), next(again)
        assert all(torch.equal(tensor, vars(other)[name]) for name, tensor in vars(one).items())
        began |= bool(one.began.any())
    assert began and not resumed.remark


def test_batches_that_do_not_divide_a_rollout_are_refused() -> None:
    for model, source, how, words in (
        ("ppo_nano", CARTPOLE, {"rollout_steps": 6, "batch_size": 4}, "expected to divide the 6 steps"),
        ("a2c_pong", HERE.replace("Catch", "OneFrame"), {"rollout_steps": 6, "batch_size": 3}, "a sequence of 6"),
    ):
        with pytest.raises(UsageError, match=words):
            feed_of(model, source, **how)


def test_real_actions_are_learned_and_refused_by_a_network_of_values(tmp_path: Path) -> None:
    few = {**SHORT, "epochs": 1, "reinforcement.test_episodes": 2, "reinforcement.validation_episodes": 1}
    made = train("ppo_continuous", "gym:Pendulum-v1", tmp_path / "run", **few)
    assert -2200 < made["test"]["mean_return"] < 0 and pipeline(tmp_path / "run")(1)[0].length == 200
    with pytest.raises(UsageError, match="takes 1 real numbers: train an actor-critic"):
        train("dqn_nano", "gym:Pendulum-v1", tmp_path / "other")


def test_an_environment_that_breaks_ends_the_training_in_one_line_and_goes_on_afterwards(tmp_path: Path) -> None:
    """It raises once 80 steps are taken: the same command goes on from the last checkpoint."""
    source = HERE.replace("Catch", "Flaky")
    import test_environments

    test_environments.Flaky.left = 80
    few = {**SHORT, "checkpoint_steps": 1, "policy.evaluation": "sampled"}
    with pytest.raises(OrchardError, match="raised RuntimeError: the simulator has crashed") as caught:
        train("ppo_nano", source, tmp_path / "run", **few)
    assert "\n" not in str(caught.value) and list((tmp_path / "run" / "checkpoints").glob("step_*"))
    test_environments.Flaky.left = 10**9
    whole = train("ppo_nano", source, tmp_path / "whole", **few)
    assert train("ppo_nano", source, tmp_path / "run", **few)["test"] == whole["test"]
