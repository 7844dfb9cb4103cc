"""`compress`: the verb, its errors, resuming, and channels that are really gone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import orchard
from orchard.app.compress import compress
from orchard.compression.prune.groups import find_groups
from orchard.compression.prune.run import prune
from orchard.compression.registry import method_named, method_names
from orchard.errors import OrchardError, UsageError
from orchard.inference.cost import multiply_adds
from orchard.models import create_model
from orchard.models.narrow import narrow
from orchard.training.loop import Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeNet that has learned digits for a moment."""
    out = tmp_path_factory.mktemp("trained") / "run"
    orchard.train("lenet5", "digits", out, epochs=3, threads=1, augmentation={"rotate": 0})
    return out


@pytest.mark.parametrize("name", method_names())
def test_every_method_has_a_record_and_settings(name: str) -> None:
    method = method_named(name)
    assert method.name == name and method.summary
    for field in method.load(method.settings).model_fields.values():
        assert field.description


def test_help_and_wrong_calls_need_no_torch(run: Path) -> None:
    program = (
        "import sys\nfrom orchard.cli.main import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    calls = {
        ("--help",): (0, "deep-compression"),
        (str(run), "--method", "prun"): (2, "unknown method 'prun'; did you mean prune?"),
        (str(run), "--method", "prune", "--set", "mac=0.5"): (2, "unknown setting 'mac'; did you mean macs"),
        (str(run), "--method", "deep-compression", "--set", "sparsity=1"): (2, "setting 'sparsity': input should be"),
        (str(run), "--method", "prune", "--data", "nowhere"): (2, "there is no file or folder 'nowhere'"),
        (str(run / "none"), "--method", "prune"): (2, "is neither a run nor a model's folder"),
    }
    for words, (code, said) in calls.items():
        done = subprocess.run([sys.executable, "-c", program, "compress", *words], capture_output=True, text=True)
        assert done.returncode == code and said in done.stdout + done.stderr, done


def test_data_of_another_kind_is_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(OrchardError, match="it has 'ant', which the model lacks"):
        compress(run, "prune", str(photos), tmp_path / "out")
    assert not (tmp_path / "out").exists() or not (tmp_path / "out" / "report.html").exists()


def test_deep_compression_gives_a_small_model_that_does_everything(run: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 1, "rounds": 2, "sparsity": 0.7}
    out = tmp_path / "small"
    table = compress(run, "deep-compression", None, out, **settings)
    assert table["after"]["file_bytes"] == (out / "model" / "model.dc").stat().st_size
    assert not (out / "model" / "model.safetensors").exists()
    assert table["ratio"] > 8
    evaluated = orchard.evaluate(out, "digits")
    assert evaluated["test"]["accuracy"] == pytest.approx(table["after"]["test"]["accuracy"])
    model = orchard.load(out).model
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            bits = 8 if isinstance(layer, torch.nn.Conv2d) else 5
            assert len(layer.weight[layer.weight != 0].unique()) <= 2**bits, name
    kept = sum(int(p.count_nonzero()) for p in model.parameters() if p.ndim > 1)
    assert kept == pytest.approx(0.3 * sum(p.numel() for p in model.parameters() if p.ndim > 1), abs=3)
    assert compress(run, "deep-compression", None, out, **settings) == table
    with pytest.raises(UsageError, match="holds a compression with fewer epochs"):
        compress(run, "deep-compression", None, out, **{**settings, "epochs": 2})
    with pytest.raises(UsageError, match=r"compress\.sparsity=0\.7"):
        compress(run, "deep-compression", None, out, **{**settings, "sparsity": 0.6})
    again = compress(out, "prune", None, tmp_path / "again", epochs=1)  # a result is a run as any other
    assert again["after"]["macs"] < 0.5 * again["before"]["macs"]


def test_a_killed_compression_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its second stage, it ends in the same bits as one that was not."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    settings: dict[str, Any] = {"epochs": 0.25, "rounds": 2, "sparsity": 0.6, "checkpoint_steps": 4}
    compress(run, "deep-compression", None, tmp_path / "whole", **settings)
    steps, real = [0], Trainer.step

    def killed(self: Trainer, batches: Any) -> None:
        steps[0] += 1
        if steps[0] == 16:
            raise KeyboardInterrupt
        real(self, batches)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        compress(run, "deep-compression", None, tmp_path / "killed", **settings)
    monkeypatch.undo()
    assert (tmp_path / "killed" / "stages" / "prune-2").exists()
    compress(run, "deep-compression", None, tmp_path / "killed", **settings)
    files = [(tmp_path / name / "model" / "model.dc").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
    assert before == {path: path.read_bytes() for path in before}
    assert not (tmp_path / "killed" / "stages").exists()


NETWORKS = ("lenet_caffe", "vgg_nano", "resnet_nano", "mobilenetv2_nano")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pruned_network_computes_what_zeroed_channels_do(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name).eval()
    config: Any = model.config
    images = torch.randn(2, config.in_channels, config.image_size, config.image_size)
    for module in model.modules():  # norms that do something
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    zeroed = create_model(name).eval()
    zeroed.load_state_dict(model.state_dict())
    groups = find_groups(zeroed, images)
    whole = multiply_adds(model, images[:1])
    prune(model, images, 0.5 * whole, "norm")
    assert multiply_adds(model, images[:1]) <= 0.5 * whole
    from orchard.compression.prune.run import importance

    for group in groups:
        kept = len(model.get_submodule(group.makers[0]).weight)  # type: ignore[arg-type]
        gone = importance(zeroed, group, "norm").argsort(descending=True)[kept:]
        for layer in (*group.makers, *group.norms):
            for parameter in zeroed.get_submodule(layer).parameters(recurse=False):
                parameter.data[gone] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(images), zeroed(images), rtol=1e-4, atol=1e-5)
    fresh = narrow(create_model(name), model.pruned).eval()  # type: ignore[arg-type]
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images), model(images))


def test_what_cannot_be_pruned_is_said_in_one_line() -> None:
    model = create_model("vit_nano")
    side = model.config.image_size  # type: ignore[union-attr]
    images = torch.randn(1, 1, side, side)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ViT cannot be pruned: every channel of it is read by something that needs"):
        find_groups(model, images)
    lenet = create_model("lenet5")
    lenet.auxiliary = torch.nn.Linear(16, 10)  # as classifiers inside are, which prediction leaves alone
    with pytest.raises(UsageError, match=r"its prediction makes no use of 'auxiliary\.weight'"):
        find_groups(lenet, torch.randn(1, 1, 32, 32))


def test_a_pruned_model_s_table_is_checked(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned"
    table = compress(run, "prune", None, out, epochs=1)
    assert table["after"]["parameters"] < table["before"]["parameters"]
    orchard.export(out, "onnx")
    shutil.copytree(out / "model", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    for change, said in (({"c1": [400, None]}, "'c1'"), ({"c9": [1]}, "c9"), ({}, "shape")):
        path.write_text(json.dumps(config | {"pruned": change}))
        with pytest.raises(OrchardError, match=said) as error:
            orchard.load(tmp_path / "model")
        assert len(str(error.value).splitlines()) == 1
    orchard.train("lenet5", "digits", tmp_path / "tuned", start_from=str(out), epochs=0.1)
    assert orchard.load(tmp_path / "tuned").model.pruned == config["pruned"]
