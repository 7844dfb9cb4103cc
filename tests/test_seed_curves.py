"""Learning curves of several seeds: read from the logs, the mean with its confidence interval, and drawn."""

from pathlib import Path

import pytest

from orchard.app.seed_curves import band_of, seed_curves
from orchard.report.charts import Band, band_chart


def write_log(folder: Path, values: dict[int, float]) -> None:
    folder.mkdir()
    lines = [f"{step},{step / 10},9.5,validation,,{value}" for step, value in values.items()]
    head = ["step,epoch,seconds,split,loss,mean_return", "5,0.5,9.5,train,1.5,"]
    (folder / "log.csv").write_text("\n".join([*head, *lines]) + "\n")


def test_bands_come_from_the_logs_of_all_seeds(tmp_path: Path) -> None:
    write_log(tmp_path / "a0", {10: 1.0, 20: 5.0, 30: 9.0})
    write_log(tmp_path / "a1", {10: 3.0, 20: 5.0})
    rows = [
        {"model": "a", "error": None, "runs": [{"folder": "a0"}, {"folder": "a1"}]},
        {"model": "b", "error": "it failed", "runs": []},
        {"model": "c", "error": None, "runs": [{"folder": "gone"}]},
    ]
    band, gone = seed_curves(rows, tmp_path, "mean_return")
    assert gone == Band("c", [])
    assert band.label == "a" and [point[:2] for point in band.points] == [(1.0, 2.0), (2.0, 5.0)]
    assert band.points[0][3] - 2.0 == pytest.approx(12.706 * 1.0, rel=1e-3)  # t of one degree of freedom, s / √2 is 1
    assert band.points[1][2:] == (5.0, 5.0)


def test_one_seed_has_no_interval_and_a_curve_of_one_point_is_not_drawn() -> None:
    band = band_of("a", [{1.0: 0.5, 2.0: 0.75}])
    assert band.points == [(1.0, 0.5, 0.5, 0.5), (2.0, 0.75, 0.75, 0.75)]
    chart = band_chart("Return", [band, Band("b", [(1.0, 1.0, 1.0, 1.0)])], x_label="epochs", y_label="return")
    assert chart is not None and [one["label"] for one in chart.bands] == ["a"] and "75.0 %" in chart.summary
    assert band_chart("Return", [Band("b", [])], x_label="epochs", y_label="return") is None
