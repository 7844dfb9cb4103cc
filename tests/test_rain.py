"""Rain: streaks and what they cover by hand, the same for every evaluation, runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_image_restoration import SMALL, picture

from orchard.app.evaluate import evaluate
from orchard.app.train import train
from orchard.data.resolutions import open_resolutions
from orchard.data.settings import CaptionSource
from orchard.errors import UsageError
from orchard.inference.loading import load
from orchard.tasks.image_restoration import rain
from orchard.tasks.image_restoration.degradation import Rain, read_degradation
from orchard.tasks.image_restoration.metrics import examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for n in range(10):
        picture(n, 40 + n, 36 + 3 * n, "L" if n == 3 else "RGB").save(root / f"{n}.png")
    return root


def test_a_streak_straight_down_is_a_column_of_its_length() -> None:
    """Of 8 pixels between the middles of its ends: 9 in a column; turned by 90 degrees, in a row; by 45, as long."""
    angles = torch.tensor([0.0, 90.0, 45.0])
    down, across, aslant = rain.streak(torch.full((3,), 8.0), angles)
    middle, size = rain.RADIUS, 2 * rain.RADIUS + 1
    expected = torch.zeros(size, size)
    expected[middle - 4 : middle + 5, middle] = 1
    torch.testing.assert_close(down, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(across, expected.T, atol=1e-5, rtol=0)
    rows, columns = (aslant > 0.99).nonzero(as_tuple=True)  # 4 / sqrt(2) = 2.8 pixels to either side
    assert rows.tolist() == columns.tolist() == [middle + n for n in (-2, -1, 0, 1, 2)]
    longest = rain.streak(torch.tensor([rain.LENGTHS[1]]), torch.zeros(1))
    assert longest.sum() == rain.LENGTHS[1] + 1 and longest[0, 0].sum() == 0  # all of it is there


def test_what_one_streak_leaves_is_covered_by_the_next() -> None:
    """Of two drops of a half, one pixel apart in a line of 9: a half at both ends, three quarters between."""
    radius = rain.RADIUS
    seeds = torch.zeros(1, 20 + 2 * radius, 5 + 2 * radius)
    seeds[0, radius + 10, radius + 2] = seeds[0, radius + 11, radius + 2] = 0.5
    share = rain.covered(seeds, rain.streak(torch.tensor([8.0]), torch.zeros(1)))[0]
    assert share.shape == (20, 5)
    expected = torch.tensor([0.0] * 6 + [0.5] + [0.75] * 8 + [0.5] + [0.0] * 4)
    torch.testing.assert_close(share[:, 2], expected, atol=1e-5, rtol=0)
    assert share[:, [0, 1, 3, 4]].abs().max() < 1e-5


def test_percent_is_the_area_under_streaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bounds in {"LENGTHS": (8.0, 8.0), "SHARES": (0.5, 0.5), "SKY": (200.0, 200.0)}.items():
        monkeypatch.setattr(rain, name, bounds)
    monkeypatch.setattr(rain, "ANGLE", 0.0)
    for percent in (5.0, 25.0):
        found = rain.add_rain(torch.zeros(1, 1, 50, 3000), torch.tensor([percent]), torch.Generator().manual_seed(0))
        dry, expected = (found < 1).float(), (1 - percent / 100 / 9) ** 9  # no drop among nine pixels
        assert dry.mean().item() == pytest.approx(expected, abs=0.01)
        assert dry[..., 0, :].mean().item() == pytest.approx(expected, abs=0.04)  # streaks reach in from outside
        levels = {round(value) for value in found.unique().tolist()}
        assert {0, 100, 150} <= levels <= {0, 100, 150, 175, 188, 194}  # one streak, two, three and more


def test_rain_follows_from_the_index_and_is_the_same_in_all_channels(folder: Path) -> None:
    split = open_resolutions(str(folder), CaptionSource(source=str(folder)), (1,)).splits["train"]
    first, again = (list(examples(split, 1, 3, Rain(0, 40))) for _ in range(2))
    assert [level for *_, level in first] == [5, 25]
    assert all(torch.equal(one[0], two[0]) for one, two in zip(first, again, strict=True))
    light, heavy = (float((given - truth).square().mean()) for given, truth, _ in first)
    assert 0 < 2 * light < heavy
    for given, *_ in first:
        assert given.min() >= 0 and given.max() <= 255
    ((grey, truth, _),) = examples(split, 1, 1, Rain(25, 25))
    share = (first[1][0] - first[1][1]).abs().amax(0) > 1e-3
    assert (((grey - truth)[0].abs() > 1e-3) == share).float().mean() > 0.99  # of grey the same streaks
    flat = Rain(25, 25).add(torch.full((2, 3, 40, 40), 50.0), torch.tensor([25.0, 25.0]))
    assert torch.equal(flat[:, 0], flat[:, 2]) and not torch.equal(flat[0], flat[1])


def test_rain_is_said_in_a_word(folder: Path, tmp_path: Path) -> None:
    assert read_degradation("rain:0-40") == Rain(0, 40) and Rain(5, 10).levels == (5,) and Rain(8, 10).levels == (10,)
    for wrong in ("rain:", "rain:0", "rain:101", "rain:30-20", "hail:5"):
        with pytest.raises(ValueError, match=r"rain:25 or rain:0-40, percentages of the image under streaks, got"):
            read_degradation(wrong)
    with pytest.raises(UsageError, match=r"^rain:5 has no standard deviation, which this model must be told"):
        train("fdncnn", str(folder), tmp_path / "run", degradation="rain:5", **SMALL)


def test_a_run_on_rain(folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"degradation": "rain:0-40", **SMALL}
    test = train("dncnn_nano", str(folder), tmp_path / "run", **settings)["test"]
    assert test["psnr"] == pytest.approx((test["psnr_5"] + test["psnr_25"]) / 2) and test["psnr_5"] > test["psnr_25"]
    assert "with rain on 25 % of the image" in (tmp_path / "run" / "report.html").read_text()
    assert load(tmp_path / "run").facts["degradation"] == "rain:0-40"
    train("dncnn_nano", str(folder), tmp_path / "again", **settings | {"max_steps": 3})
    assert train("dncnn_nano", str(folder), tmp_path / "again", **settings)["test"] == test
    found = evaluate(tmp_path / "run", str(folder))["test"]
    assert found == evaluate(tmp_path / "run", str(folder))["test"] and "psnr_25" in found
    noisy = evaluate(tmp_path / "run", str(folder), settings={"evaluation.degradation": "noise:50"})["test"]
    assert noisy["degraded_psnr"] == pytest.approx(14.2, abs=0.2)
