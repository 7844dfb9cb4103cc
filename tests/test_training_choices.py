"""What a training may be told, and what it says when the world does not play along."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from orchard.app.answer import read_options
from orchard.app.settings_page import page
from orchard.app.train import resolve_training, train
from orchard.data import Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference.sampling import Sampling
from orchard.models import create_model
from orchard.tasks import base as fine_tuning
from orchard.tasks.base import fitting_batch
from orchard.tasks.image_classification.job import Job
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_tokenization.objective import ImageTokenization
from orchard.tasks.known_classes import fine_tuned_model, head_rows
from orchard.tasks.registry import task_named, task_names, task_of
from orchard.training.loop import Trainer
from orchard.training.optim import average_of, build_optimizer, decayed_names
from orchard.training.plan import Plan, less_memory
from orchard.training.run import RunFolder, free_folder
from orchard.training.settings import SHARED, OptimizerSettings, TrainSettings
from orchard.weights.official import export_official, import_official
from orchard.weights.portable import Portable, architecture_of, save_portable

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
    run.write("run.json", {"requested": {"epochs": 1}, "data": {"fingerprint": "f"}, "started": "then"})
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


@pytest.mark.slow  # compiling takes most of a minute
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


@pytest.mark.parametrize(
    ("name", "decayed"),
    [("luong_nano", {"cell.weight_ih", "cell.weight_hh"}), ("gpt2_nano", {"blocks.0.attention.qkv.weight"})],
)
def test_tables_do_not_decay_and_recurrent_weights_do(name: str, decayed: set[str]) -> None:
    model = create_model(name)
    found = decayed_names(model)
    assert decayed_names(nn.LSTM(2, 3)) == {"weight_ih_l0", "weight_hh_l0"}
    assert all(any(one.endswith(wanted) for one in found) for wanted in decayed)
    tables = [f"{prefix}.weight" for prefix, module in model.named_modules() if isinstance(module, nn.Embedding)]
    assert tables and not found & set(tables)
    optimizer = build_optimizer(model, OptimizerSettings(weight_decay=0.1))
    plain = [p for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]]
    assert all(any(model.get_parameter(table) is one for one in plain) for table in tables)  # that of a tied head too


@pytest.mark.parametrize(
    ("setting", "chosen"),
    [({"schedule.milestones": [3]}, "cosine"), ({"optimizer.nesterov": True}, "adamw"),
     ({"optimizer.name": "sgd", "optimizer.beta2": 0.9}, "sgd"),
     ({"schedule.name": "constant", "schedule.gamma": 0.5}, "constant")],
)  # fmt: skip
def test_a_setting_that_nobody_reads_is_refused(setting: dict[str, Any], chosen: str) -> None:
    with pytest.raises(UsageError, match=f"is read by .*, not by {chosen}; leave it out"):
        resolve_training("lenet5", "a_folder", setting)


def test_settings_of_a_classifier_are_not_a_painter_s() -> None:
    for setting in ({"image_size": 32}, {"augmentation.flip": True}, {"label_smoothing": 0.1}, {"freeze_trunk": True}):
        with pytest.raises(UsageError, match="which has no such setting; leave it out"):
            resolve_training("painter_nano", "a_folder", setting)


def test_a_head_goes_on_by_the_names_of_its_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = {"width": 16, "depth": 1, "heads": 2, "patch": 4, "image_size": 8, "in_channels": 1}
    torch.manual_seed(0)
    model = create_model("vit_nano", num_classes=3, **shape)
    nn.init.normal_(model.head.weight)
    about = Portable("vit_nano", architecture_of(model), "image-classification", ("bear", "cat", "dog"), origin="")
    save_portable(tmp_path / "run", model, about)
    settings = cast(Any, SimpleNamespace(model="vit_nano", start_from=str(tmp_path / "run")))
    tuned = fine_tuned_model(settings, {"num_classes": 3}, ("cat", "dog", "emu"))
    assert torch.equal(tuned.head.weight[:2], model.head.weight[1:])
    assert not torch.equal(tuned.head.weight[2], model.head.weight[0]) and not tuned.head.bias[2]
    assert "the head goes on for cat, dog and is fresh for emu" in capsys.readouterr().err
    same = fine_tuned_model(settings, {"num_classes": 3}, about.classes)
    assert torch.equal(same.head.weight, model.head.weight) and not capsys.readouterr().err
    other = fine_tuned_model(settings, {"num_classes": 3}, ("x", "y", "z"))
    assert not torch.equal(other.head.weight, model.head.weight)
    assert "knows none of the 3 classes by name" in capsys.readouterr().err
    assert head_rows(torch.arange(4.0), torch.zeros(3), "abc", "cd", "c").tolist() == [2, 0, 3]  # and that for nothing


def test_a_plan_counts_a_discriminator_that_joins_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def loss(self: object, model: nn.Module, batch: object, step: int) -> Any:
        seen.append(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageTokenization, "tokenizer_loss", loss)
    with pytest.raises(KeyboardInterrupt):
        train("vqvae_nano", "digits", tmp_path / "run", image_size=8, max_steps=5, epochs=9)
    assert seen == [4]


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


def test_a_start_from_what_has_learned_takes_the_recipe_for_fine_tuning() -> None:
    resolved, _ = resolve_training("resnet20", "own", {"start_from": "run", "optimizer.lr": 0.5})
    shown = resolved.to_json()
    assert shown["optimizer.lr"] == {"value": 0.5, "origin": "command"}
    assert shown["optimizer.name"] == {"value": "adamw", "origin": "recipe for fine-tuning"}
    assert shown["head_epochs"]["value"] == 2 and shown["optimizer.layer_decay"]["value"] < 1
    scratch, _ = resolve_training("vit_nano", "digits", {})
    assert scratch.origins["epochs"] == "recipe vit_nano on digits"
    named, _ = resolve_training("vit_nano", "own", {"start_from": "run"}, recipe="digits")
    assert named.origins["epochs"] == "recipe vit_nano on digits"


@pytest.mark.parametrize("setting", [{"freeze_trunk": True}, {"head_epochs": 1}])
def test_a_trunk_that_has_learned_nothing_is_not_kept(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(setting))} is for a model that has learned: name it with"):
        resolve_training("resnet20", "own", setting)


def test_a_batch_fits_the_data() -> None:
    assert [fitting_batch(count) for count in (3, 40, 200, 1_000, 10**6)] == [4, 4, 8, 32, 64]


def test_the_head_learns_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_model("resnet20", num_classes=3, in_channels=1, image_size=8, depths=(1, 1, 1))
    preprocess = Preprocess((8, 8), 1, (0.5,), (0.5,)).to_json()
    about = Portable("resnet20", architecture_of(network), "image-classification", ("0", "1", "x"), preprocess)
    save_portable(tmp_path / "model", network, about)
    moved: list[set[str]] = []
    step = Trainer.step

    def watched(self: Trainer, batches: Any) -> None:
        before = {name: tensor.clone() for name, tensor in self.stepper.bare.state_dict().items()}
        step(self, batches)
        after = self.stepper.bare.state_dict()
        moved.append({name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])})
        if len(moved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", watched)
    monkeypatch.setattr(fine_tuning, "fitting_batch", lambda count: 600)
    how = {"start_from": str(tmp_path / "model"), "head_epochs": 1, "max_steps": 4, "data.workers": 0}
    with pytest.raises(KeyboardInterrupt):
        train("resnet20", "digits", tmp_path / "tuned", **how)
    assert moved == [{"head"}, {"head"}, {"conv1", "bn1", "layers", "head"}]
    settings = json.loads((tmp_path / "tuned" / "settings.json").read_text())
    assert settings["batch_size"] == {"value": 600, "origin": "chosen: some steps an epoch from 1,257 images"}


def test_no_task_adds_to_the_settings_that_all_share() -> None:
    for task in map(task_named, task_names()):
        kind = task.load(task.settings)
        for group in SHARED:
            assert kind.model_fields[group].annotation is TrainSettings.model_fields[group].annotation, task.name
