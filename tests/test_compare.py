"""compare: equal budgets, honest spread, turns that are fair, and one failure that stays one."""

import csv
import json
import math
import re

import pytest
import torch
from torch import nn

from orchard.app import compare as module
from orchard.app.compare import Budget, compare, peak_memory, turn_by_turn
from orchard.cards import card_of
from orchard.data import Preprocess
from orchard.data.kinds import data_name, folder_name
from orchard.errors import UsageError
from orchard.models import create_model
from orchard.weights.portable import Portable, architecture_of, save_portable

QUALITY = {("lenet5", 0): 0.90, ("lenet5", 1): 0.96, ("lenet5_1998", 0): 0.80, ("lenet5_1998", 1): 0.80}


def pretend(asked):
    """A training that only writes a model: what `fit.train` gives, without the wait."""

    def train(model, data, out, **settings):
        asked.append((model, out.name, settings))
        if model == "alexnet":
            raise RuntimeError("the sky fell\nand more")
        network = create_model(model)
        side = network.config.image_size
        about = Portable(
            model, architecture_of(network), "image-classification", tuple("0123456789"),
            Preprocess((side, side), 1, (0.5,), (0.5,)).to_json(),
        )  # fmt: skip
        save_portable(out / "model", network, about)
        return {
            "validation": {"accuracy": 0.1}, "test": {"accuracy": QUALITY[model, settings["seed"]]},
            "parameters": 61706, "macs": 416520, "seconds": 10.0 + settings["seed"],
        }  # fmt: skip

    return train


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 1)
    monkeypatch.setattr(module, "THROUGHPUT_BATCH", 2)


def test_rows_hold_mean_spread_and_the_others_survive_a_failure(tmp_path, quick):
    asked = []
    result = compare(
        ["lenet5", "alexnet", "lenet5_1998"], "digits", tmp_path, budget=Budget("epochs", 3), seeds=2,
        settings={"optimizer.lr": 0.01}, training=pretend(asked),
    )  # fmt: skip
    first, broken, last = result["contestants"]
    assert first["accuracy"] == pytest.approx(0.93)
    assert first["std"] == pytest.approx(math.sqrt(0.0018))  # ((0.03)² + (0.03)²) / (2 - 1)
    assert last["std"] == 0
    assert first["training_seconds"] == 10.5
    assert first["latency_s"] > 0 and first["pictures_per_second"] > 0 and first["memory_bytes"] > 61706 * 4
    assert broken["error"] == "RuntimeError: the sky fell" and broken["accuracy"] is None
    assert asked[0] == ("lenet5", "lenet5-epochs3-seed0", {"optimizer.lr": 0.01, "epochs": 3, "seed": 0})
    assert [name for _, name, _ in asked] == [
        "lenet5-epochs3-seed0", "lenet5-epochs3-seed1", "alexnet-epochs3-seed0",
        "lenet5_1998-epochs3-seed0", "lenet5_1998-epochs3-seed1",
    ]  # fmt: skip
    json.dumps(result)
    with (tmp_path / "compare.csv").open() as file:
        table = {row["model"]: row for row in csv.DictReader(file)}
    assert float(table["lenet5"]["accuracy"]) == pytest.approx(0.93)
    assert table["alexnet"]["error"] == "RuntimeError: the sky fell" and table["alexnet"]["accuracy"] == ""


def test_page_stands_alone_and_shows_every_contestant(tmp_path, quick):
    compare(
        ["lenet5", "alexnet", "lenet5_1998"], "digits", tmp_path, budget=Budget("epochs", 3), seeds=2,
        training=pretend([]),
    )  # fmt: skip
    text = (tmp_path / "compare.html").read_text()
    assert set(re.findall(r'(?:href|src)="([^"]*)"', text)) == {
        f"{model}-epochs3-seed{seed}/report.html" for model in ("lenet5", "lenet5_1998") for seed in (0, 1)
    }
    assert "<strong>lenet5</strong> has the highest test accuracy, 93.0\xa0%" in text
    assert "the sky fell" in text and "± 4.2\xa0%" in text
    assert text.count("<circle") == 2  # who failed is not in the plot


def test_a_page_with_failures_only(tmp_path, quick):
    result = compare(["alexnet"], "digits", tmp_path, budget=Budget("epochs", 3), training=pretend([]))
    assert result["contestants"][0]["error"]
    assert "the sky fell" in (tmp_path / "compare.html").read_text()


def test_seeds_start_where_they_are_told(tmp_path, quick):
    asked = []
    compare(["lenet5"], "digits", tmp_path, budget=Budget("epochs", 1), settings={"seed": 1}, training=pretend(asked))
    assert asked[0][2]["seed"] == 1


def test_budget_of_multiply_adds_becomes_steps():
    macs = card_of("lenet5").variants["lenet5"].macs
    per_step = 3 * 32 * macs  # forward and twice that backward, for 32 pictures
    given = Budget("macs", 100.5 * per_step).settings("lenet5", "digits", {"batch_size": 32, "image_size": 32})
    assert given["max_steps"] == 100
    assert given["epochs"] * (1257 // 32) > 100  # never the epochs end it
    with pytest.raises(UsageError, match="less than one step"):
        Budget("macs", 0.5 * per_step).settings("lenet5", "digits", {"batch_size": 32, "image_size": 32})


def test_budget_of_minutes_and_epochs():
    assert Budget("epochs", 7).settings("lenet5", "digits", {}) == {"epochs": 7}
    assert Budget("minutes", 2).settings("lenet5", "digits", {})["max_minutes"] == 2


@pytest.mark.parametrize(
    ("models", "seeds", "says"),
    [(["lenet5", "lenet5"], 1, "twice"), (["lenet6"], 1, "lenet5"), (["lenet5"], 0, "at least one")],
)
def test_wrong_calls_are_refused_before_anything_is_trained(tmp_path, models, seeds, says):
    asked = []
    with pytest.raises(UsageError, match=says):
        compare(models, "digits", tmp_path, budget=Budget("epochs", 1), seeds=seeds, training=pretend(asked))
    assert not asked


def test_everybody_has_a_turn_in_every_round(monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 3)
    order = []
    times = turn_by_turn({name: lambda name=name: order.append(name) for name in "ab"})
    assert "".join(order) == "aabb" + "ababab"  # warming up, then turns
    assert set(times) == {"a", "b"}


def test_peak_memory_counts_what_is_alive_at_once():
    model = nn.Sequential(nn.Linear(10, 20, bias=False), nn.ReLU(), nn.Linear(20, 5, bias=False))
    # 300 weights, 4 × 10 numbers in, and the most at once: both sides of the ReLU, 4 × 20 each.
    assert peak_memory(model, {"input": torch.randn(4, 10)}) == 4 * (300 + 40 + 80 + 80)
    in_place = nn.Sequential(nn.Linear(10, 20, bias=False), nn.ReLU(inplace=True), nn.Linear(20, 5, bias=False))
    assert peak_memory(in_place, {"input": torch.randn(4, 10)}) == 4 * (300 + 40 + 80 + 20)


def test_a_real_comparison_goes_on_where_it_was(tmp_path, quick, capsys):
    macs = card_of("lenet5").variants["lenet5"].macs
    budget = Budget("macs", 4 * 3 * 64 * macs)
    settings = {"batch_size": 64, "image_size": 32, "data.workers": 0}
    first = compare(["lenet5"], "digits", tmp_path, budget=budget, settings=settings)["contestants"][0]
    assert first["error"] is None and first["macs"] == macs
    metrics = tmp_path / first["runs"][0]["folder"] / "metrics.json"
    assert json.loads(metrics.read_text())["steps"] == 4
    written = metrics.stat().st_mtime_ns
    again = compare(["lenet5"], "digits", tmp_path, budget=budget, settings=settings)["contestants"][0]
    assert again["accuracy"] == first["accuracy"]
    assert metrics.stat().st_mtime_ns == written
    assert "finished already" in capsys.readouterr().err


def test_a_contestant_that_failed_before_it_began_can_try_again(tmp_path, quick):
    """Its folder holds a lock and nothing else, which is no reason to refuse it."""
    settings = {"image_size": 3, "data.workers": 0}
    for _ in range(2):
        result = compare(["vit_nano"], "digits", tmp_path, budget=Budget("epochs", 1), settings=settings)
        assert "a picture of 3x3 does not divide" in result["contestants"][0]["error"]


def test_a_comparison_is_added_to_and_never_overwritten_by_another(tmp_path, quick):
    budget = Budget("epochs", 3)
    compare(["lenet5", "alexnet"], "digits", tmp_path, budget=budget, training=pretend([]))
    asked = []
    result = compare(["lenet5_1998"], "digits", tmp_path, budget=budget, training=pretend(asked))
    assert {row["model"]: bool(row["error"]) for row in result["contestants"]} == {
        "lenet5": False, "alexnet": True, "lenet5_1998": False,
    }  # fmt: skip
    assert [model for model, *_ in asked] == ["lenet5", "lenet5_1998"]  # who failed is not tried again unasked
    before = {path: path.read_bytes() for path in tmp_path.glob("compare.*")}
    assert {path.suffix for path in before} == {".csv", ".json", ".html"}
    others = [("mnist", budget, {}), ("digits", Budget("epochs", 4), {}), ("digits", budget, {"seed": 1})]
    for source, amount, settings in others:
        with pytest.raises(UsageError, match="holds a comparison with"):
            compare(["lenet5"], source, tmp_path, budget=amount, settings=settings, training=pretend(asked))
    with pytest.raises(UsageError, match=r"unknown setting 'optimizer.lrr'"):
        compare(["lenet5"], "digits", tmp_path / "new", budget=budget, settings={"optimizer.lrr": 1})
    assert not (tmp_path / "new").exists()
    assert all(path.read_bytes() == content for path, content in before.items())


def test_folders_carry_the_name_of_the_data(tmp_path):
    assert [data_name(source) for source in ("digits", str(tmp_path / "my flowers"), "a/b/birds.tar.gz")] == [
        "digits", "my flowers", "birds",
    ]  # fmt: skip
    assert folder_name("timm:../../x", "my flowers") == "timm-..-..-x-my-flowers"
    assert "/" not in folder_name("hf:a/b", "\udce9/..")


def test_language_models_are_compared_by_their_metric(tmp_path, quick):
    def train(model, data, out, **settings):
        network = create_model(model, vocabulary=20, context=8, width=16, depth=1, heads=2)
        save_portable(out / "model", network, Portable(model, architecture_of(network), "text-generation"))
        figures = {"perplexity": 3.0, "loss": 1.1, "bits_per_character": 1.5}
        return {"validation": figures, "test": figures, "parameters": 1, "macs": 1, "seconds": 1.0}

    book = tmp_path / "book.txt"
    book.write_text("a word " * 50)
    result = compare(["gpt2_nano"], str(book), tmp_path / "c", budget=Budget("epochs", 1), training=train)
    (row,) = result["contestants"]
    assert row["error"] is None and row["loss"] == 1.1 and row["latency_s"] > 0
