"""What a training may be told, and what it says when the world does not play along."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from orchard.app.answer import read_options
from orchard.app.settings_page import page
from orchard.app.train import resolve_training, train
from orchard.errors import OrchardError, UsageError
from orchard.inference.sampling import Sampling
from orchard.models import create_model
from orchard.tasks.image_classification.job import Job
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.registry import task_named, task_of
from orchard.training.optim import average_of, build_optimizer
from orchard.training.plan import Plan, less_memory
from orchard.training.run import RunFolder, free_folder
from orchard.training.settings import OptimizerSettings, TrainSettings
from orchard.weights.official import export_official, import_official

TINY: dict[str, Any] = {
    "architecture.width": 16,
    "architecture.depth": 2,
    "architecture.heads": 2,
    "image_size": 16,
    "batch_size": 128,
    "max_steps": 3,
}


def test_out_of_memory_says_what_was_tried_and_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ImageClassification, "loss", no_room)
    with pytest.raises(OrchardError, match=r"out of memory at a batch of 128 .* accumulate=2.* batch_size=64"):
        train("vit_nano", "digits", tmp_path / "run", **TINY)


def test_a_batch_that_must_stay_whole_is_not_to_be_cut() -> None:
    def settings(**more: Any) -> TrainSettings:
        return TrainSettings.model_validate({"model": "x", "data": {"source": "x"}, **more})

    assert not task_of("gpt2_nano").whole_batch and task_of("clip_nano").whole_batch
    assert "accumulate=4" in less_memory(settings(accumulate=2), cut=True)
    assert less_memory(settings(batch_size=64), cut=False) == "--set batch_size=32"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OrchardError, match=r"cannot write .*file/run"):
        train("vit_nano", "digits", tmp_path / "file" / "run", **TINY)
    with pytest.raises(UsageError, match="is a file; name a folder"):
        train("vit_nano", "digits", tmp_path / "file", **TINY)


def test_two_trainings_do_not_write_the_same_run(tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "run")
    first.open({})
    with pytest.raises(OrchardError, match="another process is training"):
        RunFolder(tmp_path / "run").open({})
    first.close()


def test_a_run_nobody_named_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    base = tmp_path / "vit_nano-digits"
    assert free_folder(base, {"epochs": 1}) == base
    run = RunFolder(base)
    run.open({"epochs": 1})
    run.write("run.json", {"requested": {"epochs": 1}})
    run.close()
    assert free_folder(base, {"epochs": 1}) == base  # unfinished: it goes on
    assert free_folder(base, {"epochs": 2}).name == "vit_nano-digits-2"
    (base / "report.html").write_text("<html>")
    assert free_folder(base, {"epochs": 1}) == base  # finished: it is returned


def test_an_official_checkpoint_is_imported_and_tuned_with_a_new_head(tmp_path: Path) -> None:
    shape = {"width": 16, "depth": 2, "heads": 2, "patch": 4, "image_size": 16, "in_channels": 1}
    model = create_model("vit_tiny_patch16_224", num_classes=7, **shape)
    save_file(export_official(model, source="timm"), tmp_path / "official.safetensors")
    import_official("vit_tiny_patch16_224", tmp_path / "official.safetensors", tmp_path / "imported", "timm", **shape)
    settings = {"start_from": str(tmp_path / "imported"), "image_size": 24, "batch_size": 128, "max_steps": 2}
    train("vit_tiny_patch16_224", "digits", tmp_path / "run", **settings, ema=None)
    tuned = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert tuned["head.weight"].shape == (10, 16)
    assert tuned["position"].shape == (1, 1 + 6 * 6, 16)
    torch.testing.assert_close(
        tuned["blocks.0.attention.qkv.weight"], model.state_dict()["blocks.0.attention.qkv.weight"], atol=0.02, rtol=0
    )


def test_a_start_of_another_model_is_refused(tmp_path: Path) -> None:
    train("vit_nano", "digits", tmp_path / "run", **TINY)
    with pytest.raises(UsageError, match="holds a vit_nano, not a lenet5"):
        train("lenet5", "digits", tmp_path / "other", start_from=str(tmp_path / "run"), max_steps=1)


def test_training_stops_early_without_a_better_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([0.5, 0.6, 0.4, 0.55, 0.9])
    monkeypatch.setattr(Job, "evaluate", lambda job, model: {"loss": 1.0, "accuracy": next(said)})
    settings = {**TINY, "max_steps": None, "epochs": 50, "patience": 2}
    metrics = train("vit_nano", "digits", tmp_path / "run", **settings)
    assert metrics["epochs"] == 4
    assert metrics["best_step"] == metrics["steps"] // 2
    assert metrics["stopped"] == "no better validation in 2 epochs"


def test_time_that_is_over_ends_the_training_with_everything_written(tmp_path: Path) -> None:
    metrics = train("vit_nano", "digits", tmp_path / "run", **{**TINY, "max_steps": None, "max_minutes": 1e-4})
    assert "the time allowed was over after" in metrics["stopped"]
    assert (tmp_path / "run" / "report.html").exists()
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_compiled_steps_learn_what_plain_steps_learn(tmp_path: Path) -> None:
    settings = {"image_size": 16, "batch_size": 128, "max_steps": 2, "log_every": 1}  # few layers: compiling is slow
    for name, compiled in (("plain", False), ("compiled", True)):
        train("lenet_300_100", "digits", tmp_path / name, **settings, compile=compiled)
    rows = {}
    for name in ("plain", "compiled"):
        with (tmp_path / name / "log.csv").open(newline="") as file:
            rows[name] = [float(row["loss"]) for row in csv.DictReader(file)]
    assert rows["plain"] == pytest.approx(rows["compiled"], rel=1e-4)


def test_lower_layers_learn_slower_and_only_matrices_decay() -> None:
    model = create_model("vit_nano", width=16, depth=3, heads=2)
    optimizer = build_optimizer(model, OptimizerSettings(layer_decay=0.5, weight_decay=0.1))
    place = {
        id(p): (group["scale"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    found = {name: place[id(p)] for name, p in model.named_parameters()}
    assert found["head.weight"] == (1.0, 0.1)
    assert found["head.bias"] == (1.0, 0.0)
    assert found["blocks.2.mlp.fc1.weight"][0] == 2 * found["blocks.1.mlp.fc1.weight"][0]
    assert found["position"][1] == 0.0
    assert found["patch_embed.weight"][0] == min(scale for scale, _ in found.values())


def test_the_average_follows_the_weights() -> None:
    model = nn.BatchNorm1d(3)
    average = average_of(model, 0.5)
    for value in (1.0, 3.0):
        nn.init.constant_(model.weight, value)
        model.num_batches_tracked += 1
        average.update_parameters(model)
    # The first update copies; the second moves by 1 - min(0.5, (1 + 1) / (10 + 1)).
    torch.testing.assert_close(average.module.weight, torch.full((3,), 1.0 + 2.0 * (1 - 2 / 11)))
    assert int(average.module.num_batches_tracked) == 2


def test_the_plan_warns_of_what_does_not_fit() -> None:
    settings = TrainSettings.model_validate({"model": "vit_nano", "data": {"source": "digits"}, "epochs": 10})
    plan = Plan(10, 2e9, 1e9, seconds=600.0, limit=None, settings=settings, cut=True)
    assert "needs about 2.0 GB and 1.0 GB are free; try --set accumulate=2" in plan.warnings()[0]
    hurried = replace(plan, memory=1.0, limit=60.0)
    assert hurried.warnings() == [
        "the time allowed is enough for about 1.0 epochs; the learning rate falls accordingly"
    ]
    assert "about 60 seconds" in hurried.words()


def test_the_page_of_settings_is_made_from_the_settings() -> None:
    written = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
    assert written == page(), "write it anew: python -m orchard.app.settings_page > docs/settings.md"
    assert "`optimizer.lr`" in written


@pytest.mark.parametrize(
    "setting",
    [{"epochs": math.inf}, {"epochs": math.nan}, {"max_minutes": math.inf}, {"optimizer.lr": math.nan},
     {"seed": 1_700_000_000_000}, {"ema": math.nan}, {"clip_norm": math.inf}],
)  # fmt: skip
def test_a_setting_that_is_no_number_is_answered_in_one_line(setting: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=rf"^setting '{next(iter(setting))}': input should be [^\n]*$"):
        resolve_training("vit_nano", "digits", setting)


@pytest.mark.parametrize("option", [{"temperature": math.nan}, {"temperature": 1e-40}, {"temperature": math.inf},
                                    {"repetition_penalty": math.nan}, {"repetition_penalty": 1e-40}])  # fmt: skip
def test_sampling_takes_numbers_that_logits_can_be_divided_by(option: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(option))} .*: expected"):
        Sampling(**option)


def test_an_option_that_is_no_number_is_answered_in_one_line() -> None:
    for name, value in {"seed": 1_700_000_000_000, "temperature": math.nan, "repetition_penalty": math.nan}.items():
        with pytest.raises(UsageError, match=rf"^option '--{name.replace('_', '-')}': input should be [^\n]*$"):
            read_options(task_named("text-generation"), {name: value})
