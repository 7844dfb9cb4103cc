"""The learning rate range test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import orchard as command

import orchard
from orchard.app.find_lr import STEPS, read_curve
from orchard.training.optim import learning_rate_factor
from orchard.training.settings import ScheduleSettings


def test_a_curve_is_read_where_it_falls_fastest_and_no_further_than_a_tenth_of_the_lowest() -> None:
    exponents = np.linspace(-5, 1, 61)
    losses = 2 - 1.5 / (1 + np.exp(-8 * (exponents + 2.5))) + np.where(exponents > -1, exponents + 1, 0)
    found = read_curve(list(10**exponents), list(losses))
    assert found["steepest"] == pytest.approx(10**-2.5, rel=0.1)
    assert found["lowest"] == pytest.approx(0.1, rel=0.3)
    assert found["suggested"] == found["steepest"] < found["lowest"] / 10


@pytest.mark.parametrize("losses", [[], [1.0] * 50, list(np.linspace(1, 4, 50))])
def test_a_loss_that_never_falls_is_an_error(losses: list[float]) -> None:
    with pytest.raises(orchard.OrchardError, match="does not fall"):
        read_curve(list(np.geomspace(1e-5, 10, len(losses))), losses)


def test_the_suggested_rate_learns(tmp_path: Path) -> None:
    found = orchard.find_lr("lenet5", "digits", tmp_path / "lr.html")
    assert 1e-4 < found["suggested"] <= found["lowest"] / 9 and len(found["rates"]) == len(found["losses"]) <= STEPS
    assert f"{found['suggested']:g}" in (tmp_path / "lr.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["lr.html"], "something else was kept"
    learned = orchard.train("lenet5", "digits", tmp_path / "run", epochs=3, optimizer={"lr": found["suggested"]})
    assert learned["test"]["accuracy"] > 0.8


def test_what_the_test_sets_itself_is_refused() -> None:
    with pytest.raises(orchard.UsageError, match=r"optimizer\.lr is set by the range test"):
        orchard.find_lr("lenet5", "digits", optimizer={"lr": 0.1})


@pytest.mark.parametrize(("words", "said"), [
    (["lenet5", "--lr", "0.1"], "optimizer.lr is set by the range test"),
    (["lenet5", "--set", "devices=2"], "devices is set by the range test"),
    (["dcgan_nano"], "learns from several losses"),
])  # fmt: skip
def test_what_no_range_test_can_do_is_said_in_a_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("train", *words, "--data", "digits", "--find-lr") == 2
    assert said in capsys.readouterr().err


def test_rates_rise_by_equal_factors_from_the_lowest_to_the_highest() -> None:
    schedule = ScheduleSettings(name="range_test", final_fraction=1e-6)
    rates = [10 * learning_rate_factor(step, STEPS, 0, schedule) for step in range(STEPS)]
    assert rates == pytest.approx(np.geomspace(1e-5, 10, STEPS))


def test_the_command_prints_the_curve_and_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("train", "lenet5", "--data", "digits", "--find-lr") == 0
    shown = capsys.readouterr().out
    assert "suggested: --lr" in shown and "▁" in shown
    assert (tmp_path / "runs" / "lenet5-digits-lr.html").exists()
