"""Reinforcement learning: an environment in place of a data set, through the same commands and the same run folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from log_lines import log_lines
from PIL import Image
from safetensors.torch import load_file
from test_environments import HERE

from orchard.app.answer import answer
from orchard.app.evaluate import evaluate
from orchard.app.pipeline import pipeline
from orchard.app.train import train
from orchard.data.environments import Environments, Episode
from orchard.data.open_environment import open_environment
from orchard.errors import UsageError
from orchard.models import create_model
from orchard.tasks.reinforcement_learning.exploration import explore
from orchard.tasks.reinforcement_learning.film import film, write_film
from orchard.tasks.reinforcement_learning.metrics import compute_metrics, spread_of
from orchard.tasks.reinforcement_learning.playing import play
from orchard.tasks.reinforcement_learning.q_learning import QLearner, QLearning
from orchard.tasks.reinforcement_learning.replay import Transitions
from orchard.tasks.reinforcement_learning.replay_feed import ReplayFeed
from orchard.tasks.reinforcement_learning.settings import ReinforcementSettings, Settings

pytest.importorskip("gymnasium")
CARTPOLE = "gym:CartPole-v1"
SHORT = {
    "epochs": 3,
    "batch_size": 16,
    "checkpoint_steps": 2,
    "log_every": 2,
    "reinforcement.environments": 2,
    "reinforcement.train_every": 4,
    "reinforcement.learning_starts": 60,
    "reinforcement.evaluate_every": 40,
    "reinforcement.target_every": 24,
    "reinforcement.replay_capacity": 128,
    "reinforcement.validation_episodes": 3,
    "reinforcement.test_episodes": 5,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training without interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train("dqn_nano", CARTPOLE, out, **SHORT)["test"]["mean_return"] > 1
    return out


def test_run_folder_is_complete(run: Path) -> None:
    metrics, facts = (json.loads((run / f"{name}.json").read_text()) for name in ("metrics", "run"))
    assert metrics["task"] == "reinforcement-learning" and metrics["data"] == CARTPOLE and metrics["steps"] == 30
    assert metrics["parameters"] == 10_934  # the target network stays behind
    assert facts["data"]["counts"] == {"validation": 3, "test": 5} and facts["data"]["fingerprint"]
    assert load_file(run / "evaluation" / "test.safetensors")["score"].mean() == metrics["test"]["mean_return"]
    rows = log_lines(run)
    assert {"training_return", "q_value", "td_error", "epsilon", "mean_return"} <= rows[0].keys()
    assert float(rows[0]["epsilon"]) > float(rows[-2]["epsilon"]) > 0.9


def test_report_has_a_film_curves_and_returns(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "data:image/gif;base64," in page and "http" not in page.split("<main>")[-1].split("<footer>")[0]
    for words in ("Return, greedy", "Q values", "Epsilon", "Returns of single episodes", "worth"):
        assert words in page


def test_killed_anywhere_and_started_again_ends_in_the_same_bits(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pairs = [word for key, value in SHORT.items() for word in ("--set", f"{key}={value}")]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchard.cli.main", "train", "dqn_nano", "--data", CARTPOLE, "--out", str(out), *pairs],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for _ in range(30_000):
        if process.poll() is not None or list((out / "checkpoints").glob("step_000000022")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list((out / "checkpoints").glob("step_*")) and not (out / "metrics.json").exists()
    train("dqn_nano", CARTPOLE, out, **SHORT)
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (run, out))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert log_lines(out) == log_lines(run)
    ends = [json.loads((folder / "metrics.json").read_text())["test"] for folder in (run, out)]
    assert ends[0] == ends[1]


def test_episodes_and_a_film_come_out(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pygame")
    capfd.readouterr()
    first, second = (one.to_json() for one in answer(run, [], {"episodes": 2, "out": tmp_path / "film.gif"}))
    assert first["film"] == str(tmp_path / "film.gif") and first["return"] == first["length"]
    assert second["episode"] == 1 and "film" not in second
    assert capfd.readouterr().out == ""  # the library that draws greets nobody
    with Image.open(tmp_path / "film.gif") as picture:
        assert picture.width == 320 and 2 <= picture.n_frames <= first["length"] / 2 + 1  # every second of 50 a second
    again = list(answer(run, [], {"episodes": 2}))
    assert [one.score for one in again] == [first["return"], second["return"]]
    assert [one.score for one in answer(run, [CARTPOLE], {"episodes": 2, "seed": 5})] != [one.score for one in again]
    assert [episode.score for episode in pipeline(run)(2)] == [one.score for one in again]


def test_evaluation_plays_the_episodes_of_the_training(run: Path) -> None:
    played = pipeline("reinforcement-learning", run, seed=2)(5)
    figures = json.loads((run / "metrics.json").read_text())["test"]
    assert compute_metrics(played) == figures
    hundred = evaluate(run, CARTPOLE, "test")["test"]
    assert hundred.keys() > figures.keys() and hundred["mean_return"] > 1
    with pytest.raises(UsageError, match="has no train split; it has validation, test"):
        evaluate(run, CARTPOLE, "train")


def test_wrong_calls_are_one_line(run: Path, tmp_path: Path) -> None:
    for words, call in (
        ("did you mean CartPole-v1", lambda: train("dqn_nano", "gym:CartPool-v1", tmp_path / "a")),
        ("expected gym:NAME or python:NAME", lambda: train("dqn_nano", "CartPole-v1", tmp_path / "a")),
        ("dqn: convolutions expect", lambda: train("dqn", CARTPOLE, tmp_path / "b")),
        ("one device", lambda: train("dqn_nano", CARTPOLE, tmp_path / "c", devices=2)),
        ("is for image-classification", lambda: train("dqn_nano", CARTPOLE, tmp_path / "d", label_smoothing=0.1)),
        ("has (6,) and 3", lambda: list(answer(run, ["gym:Acrobot-v1"]))),
        ("name one environment", lambda: list(answer(run, [CARTPOLE] * 2, {"out": tmp_path / "x.gif"}))),
        (".gif; name it so", lambda: list(answer(run, [], {"out": tmp_path / "x.mp4"}))),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert words in str(caught.value).replace("'", "") and "\n" not in str(caught.value)


def test_fine_tuning_starts_from_the_weights_of_a_run(run: Path, tmp_path: Path) -> None:
    made = train(
        "dqn_nano", CARTPOLE, tmp_path / "run", **SHORT | {"epochs": 1, "start_from": str(run), "optimizer.lr": 1e-12}
    )
    assert made["test"]["mean_return"] == json.loads((run / "metrics.json").read_text())["test"]["mean_return"]


# Parts


def feed_of(source: str, network: torch.nn.Module, **settings: object) -> ReplayFeed:
    table = {"replay_capacity": 400, "learning_starts": 50, "train_every": 4, "epsilon_steps": 100, **settings}
    whole = Settings(model="dqn", data={"source": source}, batch_size=8, seed=3, reinforcement=table)
    return ReplayFeed(network, open_environment(source), whole)


@pytest.fixture(scope="module")
def eyes() -> torch.nn.Module:
    """A small network for frames."""
    torch.manual_seed(0)
    return create_model("dqn_2013", actions=3, channels=(4, 4), hidden=(16,))


@pytest.mark.parametrize("environments, alpha", [(1, 0.0), (3, 0.6)])
def test_a_feed_of_frames_resumes_in_the_same_bits(eyes: torch.nn.Module, environments: int, alpha: float) -> None:
    settings = {"environments": environments, "lives_end_episodes": True, "clip_rewards": True, "n_step": 2}
    settings["priority_alpha"] = alpha
    straight, resumed = (feed_of(HERE, eyes, **settings) for _ in range(2))
    batches = straight.batches(0)
    for number in range(30):
        next(batches)
        assert straight.taken - (50 + 4 * number) in range(environments)
    state = {name: tensor.clone() for name, tensor in straight.state().items()}
    assert state["replay.seen"].dtype == torch.uint8 and state["replay.seen"].shape[2:] == (84, 84)
    resumed.load(state)
    again = resumed.batches(30)
    for _ in range(40):
        (one,), (other,) = next(batches), next(again)
        for feed in (straight, resumed):
            feed.surprised(one, one.rewards)
        assert all(torch.equal(tensor, vars(other)[name]) for name, tensor in vars(one).items())
    assert not resumed.remark and straight.lately() == resumed.lately()


def test_lives_and_clipping_change_what_is_learned_and_not_what_is_told(eyes: torch.nn.Module) -> None:
    plain = feed_of(HERE, eyes)
    changed = feed_of(HERE, eyes, lives_end_episodes=True, clip_rewards=True)
    for feed in (plain, changed):
        feed._act(300)
    assert plain.scores == changed.scores and min(plain.scores) <= -6  # two lives at -3
    assert plain.replay.rewards.min() == -3 and changed.replay.rewards.min() == -1
    assert changed.replay.terminated.sum() > plain.replay.terminated.sum() > 0
    assert np.array_equal(plain.replay.last, changed.replay.last)  # the games go on alike


def test_a_lost_place_is_said_in_the_line_before_the_first_step(eyes: torch.nn.Module) -> None:
    forgetful = HERE.replace("Catch", "Forgetful")
    stopped, resumed = feed_of(forgetful, eyes), feed_of(forgetful, eyes)
    stopped._act(20)
    resumed.load(stopped.state())
    assert "does not repeat an episode" in resumed.remark


def test_an_example_takes_no_step(eyes: torch.nn.Module) -> None:
    feed = feed_of(HERE, eyes)
    example = feed.example()
    assert len(example) == 8 and example.observations.shape == (8, 4, 84, 84)
    assert feed.taken == 0 and not feed.replay.written.any()
    assert feed.name_records(example) == f"8 of the last 0 steps in {HERE}"


def test_the_target_network_is_renewed_every_so_many_updates_and_does_not_learn() -> None:
    learner = QLearner(create_model("dqn_nano"), target_every=3)
    first = learner.target.head.weight.clone()
    groups = [name for group in learner.layer_groups() for name in group]
    learning = [name for name, parameter in learner.named_parameters() if parameter.requires_grad]
    assert all(name.startswith(tuple(groups)) for name in learning) and not any("target" in name for name in learning)
    for step in range(1, 7):
        with torch.no_grad():
            learner.network.head.weight.add_(1.0)
        learner.after_step(step)
        behind = learner.network.head.weight - learner.target.head.weight
        assert torch.allclose(behind, torch.full_like(first, step % 3), atol=1e-5)


def test_the_loss_is_made_of_the_parts_that_the_settings_name() -> None:
    torch.manual_seed(1)
    learner = QLearner(create_model("dqn_nano"), target_every=1)
    torch.nn.init.normal_(learner.target.head.weight)
    batch = Transitions(
        torch.randn(4, 4), torch.tensor([0, 1, 1, 0]), torch.arange(4.0), torch.full((4,), 0.5), torch.randn(4, 4),
        torch.tensor([1.0, 0.5, 0.25, 1.0]), torch.arange(4),
    )  # fmt: skip
    with torch.no_grad():
        values = learner.network(batch.observations)[range(4), batch.actions]
        after, chosen = learner.target(batch.next_observations), learner.network(batch.next_observations).argmax(1)
        greatest, double = batch.rewards + 0.5 * after.amax(1), batch.rewards + 0.5 * after[range(4), chosen]
    for settings, expected in (
        ({"error": "squared"}, (values - greatest).square().mean()),
        ({"error": "squared", "next_value": "double"}, (values - double).square().mean()),
        ({}, torch.nn.functional.smooth_l1_loss(values, greatest)),
        ({"error": "squared", "priority_alpha": 0.6}, (batch.weights * (values - greatest).square()).mean()),
    ):
        objective = QLearning(ReinforcementSettings(learning_starts=10, epsilon_steps=100, **settings), lambda: 7.0)
        loss, figures = objective.loss(learner, batch, 5)
        assert loss.item() == pytest.approx(expected.item())
        assert figures["q_value"].item() == pytest.approx(values.mean().item()) and figures["training_return"] == 7
        assert figures["epsilon"].item() == pytest.approx(1 - 0.95 * 20 / 100)  # 5 updates, 4 steps each
        assert not figures["q_value"].requires_grad and loss.requires_grad


def test_metrics_by_hand() -> None:
    found = compute_metrics([Episode(0, 10.0, 4), Episode(1, 20.0, 6)])
    assert found == {"mean_return": 15.0, "return_std": 5.0, "mean_length": 5.0}


def test_the_spread_of_returns_and_what_a_person_reaches() -> None:
    episodes = [Episode(0, -20.7, 4), Episode(1, 14.6, 6)]
    plain = spread_of(episodes, CARTPOLE)
    assert plain == {"return_error": pytest.approx(35.3 / 2), "lowest_return": -20.7, "highest_return": 14.6}
    assert spread_of(episodes, "gym:ALE/Pong-v5")["human_normalised"] == pytest.approx(0.5)


def test_exploration_is_a_function_of_seed_and_step() -> None:
    network, seen = create_model("dqn_nano"), np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    with torch.no_grad():
        best = network(torch.from_numpy(seen)).argmax(1).numpy()
    assert np.array_equal(explore(network, seen, 0.0, 1, 1), best)
    some = explore(network, seen, 0.5, 1, 1)
    assert np.array_equal(some, explore(network, seen, 0.5, 1, 1))
    assert not np.array_equal(some, explore(network, seen, 0.5, 1, 2))
    assert 0.15 < (some != best).mean() < 0.35  # half are random, and half of these are another action
    deaf = SimpleNamespace(config=network.config)  # all random: nothing is asked
    assert set(explore(deaf, seen, 1.0, 1, 1)) == {0, 1}


def test_episodes_are_the_same_however_many_are_played(eyes: torch.nn.Module) -> None:
    few, many = play(eyes, HERE, 2, seed=4), play(eyes, HERE, 5, seed=4)
    assert few == many[:2] and [episode.number for episode in many] == [0, 1, 2, 3, 4]


def test_a_film_of_frames_and_its_strip(eyes: torch.nn.Module, tmp_path: Path) -> None:
    made = film(eyes, HERE, seed=4)
    assert made.episode == play(eyes, HERE, 1, seed=4)[0]
    assert len(made.pictures) == made.episode.length
    assert {len(values) for values in made.worth.values()} == {made.episode.length} and len(made.worth) == 2
    assert made.pictures[0].size == (84, 84) and len(made.strip(4)) == 4
    write_film(made, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as picture:
        assert picture.is_animated
    blind = HERE.replace("Catch", "Blind")
    with pytest.raises(UsageError, match=r"cannot be made: .*render_mode"):
        film(eyes, blind, seed=4)


@pytest.mark.slow
def test_pong_learns_a_few_hundred_steps(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    few = {
        "epochs": 1, "batch_size": 8, "precision": "fp32", "reinforcement.evaluate_every": 40,
        "reinforcement.learning_starts": 200, "reinforcement.replay_capacity": 1000,
        "reinforcement.validation_episodes": 1, "reinforcement.test_episodes": 1,
    }  # fmt: skip
    made = train("dqn_2013", "gym:ALE/Pong-v5", tmp_path / "run", **few)
    assert made["steps"] == 10 and -21 <= made["test"]["mean_return"] <= 21
    envs = Environments("gym:ALE/Pong-v5", 1, 0)
    assert envs.observations.shape == (1, 4, 84, 84)
