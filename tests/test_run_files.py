"""metrics.json, settings.json and compare.json of anybody: read whole, or one line with the file's name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from orchard.app.compare import Budget, compare
from orchard.app.train import train
from orchard.errors import OrchardError
from orchard.files import DEEPEST_JSON, LARGEST_JSON, read_json
from orchard.training.run import RunFolder

OLD = Path(__file__).parent / "golden" / "runs_0_1"
TINY: dict[str, Any] = {
    "architecture.width": 16, "architecture.depth": 2, "architecture.heads": 2, "image_size": 8,
    "architecture.patch": 4, "batch_size": 128, "max_steps": 2,
}  # fmt: skip
NO_TABLES = ("{}", "null", "[]", "7", '"text"', "[[]]", "", "{", "NaN", "[" * 100_000, '{"a":' * 100_000)
NO_TABLES += ("[" * 900 + "]" * 900, "9" * 5000, '{"a": Infinity}', '\ud800"')


@pytest.mark.parametrize("task", [path.name for path in OLD.iterdir() if path.name != "unfinished"])
def test_files_of_version_0_1_are_read_whole(task: str) -> None:
    run = RunFolder(OLD / task)
    metrics, settings = (json.loads((OLD / task / f"{name}.json").read_text()) for name in ("metrics", "settings"))
    assert run.metrics().table() == metrics and run.metrics().reported == metrics["test"]
    assert {key: row.model_dump() for key, row in run.settings().rows().items()} == settings


def broken(good: dict[str, Any], changes: dict[str, Any]) -> list[str]:
    texts = [text for text in NO_TABLES if text != "{}" or "validation" in good]  # settings may be none
    return texts + [json.dumps({**good, **change}) for change in ({key: value} for key, value in changes.items())]


def test_every_other_form_is_one_line_with_the_name(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    metrics = json.loads((OLD / "image-classification" / "metrics.json").read_text())
    changes: dict[str, Any] = {
        "validation": None, "test": [0.5], "parameters": "many", "macs": -1, "seconds": math.nan, "epochs": math.inf,
        "steps": 1.5, "model": 7, "pictures_per_second": [1], "stopped": None, "size_bytes": True,
    }  # fmt: skip
    files = {"metrics": [*broken(metrics, changes), json.dumps({**metrics, "test": {"accuracy": "high"}})]}
    files["metrics"] += [json.dumps(metrics).replace("0.1579", "1e999")]
    good = {"threads": {"value": 1, "origin": "chosen"}}
    odd = {"threads": {"value": "1", "origin": "x"}, "seed": 0, "epochs": {"value": 3}, "lr": {"value": 1, "origin": 3}}
    files["settings"] = [*broken(good, odd), '{"threads": {"value": 0, "origin": ""}}']
    for name, texts in files.items():
        for text in texts:
            (tmp_path / f"{name}.json").write_bytes(text.encode(errors="surrogatepass"))
            with pytest.raises(OrchardError) as caught:
                getattr(run, name)()
            said = str(caught.value)
            assert said.startswith(str(tmp_path / f"{name}.json")) and "\n" not in said and len(said) < 500, text[:80]


def test_a_mean_over_nothing_is_null_and_read_as_such(tmp_path: Path) -> None:
    metrics = json.loads((OLD / "image-classification" / "metrics.json").read_text())
    metrics["test"]["accuracy"] = None
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert math.isnan(RunFolder(tmp_path).metrics().reported["accuracy"])


def test_json_is_bounded_in_size_and_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * DEEPEST_JSON + "]" * DEEPEST_JSON)
    read_json(path)
    path.write_text("[" * (DEEPEST_JSON + 1) + "]" * (DEEPEST_JSON + 1))
    with pytest.raises(OrchardError, match="nest more than"):
        read_json(path)
    with path.open("wb") as file:
        file.truncate(LARGEST_JSON + 1)  # takes no room
    with pytest.raises(OrchardError, match="bytes; expected a JSON file of at most"):
        read_json(path)


def test_a_finished_run_and_a_comparison_with_broken_files_say_so(tmp_path: Path) -> None:
    out = tmp_path / "compared" / "vit_nano-epochs1-seed0"
    settings = {**TINY, "epochs": 1.0}
    train("vit_nano", "digits", out, **settings, seed=0)
    metrics = json.loads((out / "metrics.json").read_text())
    assert train("vit_nano", "digits", out, **settings, seed=0) == {"run": str(out), **metrics}
    (out / "metrics.json").write_text("{}")
    with pytest.raises(OrchardError, match=r"metrics\.json: 'model': field required"):
        train("vit_nano", "digits", out, **settings, seed=0)
    metrics["test"]["accuracy"] = None
    (out / "metrics.json").write_text(json.dumps(metrics))
    row = compare(["vit_nano"], "digits", tmp_path / "compared", budget=Budget("epochs", 1.0), settings=TINY)
    assert "metrics.json has no number for the test accuracy" in row["contestants"][0]["error"]
    for text in ("{}", "[]", '{"contestants": [{"model": 1, "error": null}]}'):
        (tmp_path / "compared" / "compare.json").write_text(text)
        with pytest.raises(OrchardError, match=r"compare\.json: "):
            compare(["vit_nano"], "digits", tmp_path / "compared", budget=Budget("epochs", 1.0), settings=TINY)


def test_an_unfinished_run_with_broken_settings_says_so(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train("vit_nano", "digits", out, **TINY)
    (out / "report.html").unlink()
    (out / "settings.json").write_text('{"threads": {"value": [1], "origin": "chosen"}}')
    with pytest.raises(OrchardError, match=r"settings\.json: 'threads\.value': input should be a valid integer"):
        train("vit_nano", "digits", out, **TINY)
