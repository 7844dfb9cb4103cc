"""int8: the arithmetic, what the graph says of a network, a folder that is read as any other, and wrong calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from commands import orchard
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.app.compress import compress
from orchard.app.evaluate import evaluate
from orchard.app.export import export
from orchard.app.train import train
from orchard.errors import OrchardError, UsageError
from orchard.inference.fast import precision_of
from orchard.inference.loading import load
from orchard.inference.quantization import learned_int8, quantize, read_graph, round_while_learning
from orchard.models import create_model
from orchard.nn.quantized import Grid, Grids, fold_norm, quantized_layers, to_int8
from orchard.weights.portable import Portable, architecture_of, load_portable, save_portable
from orchard.weights.quantized import FACT


def living(name: str, **sizes: Any) -> nn.Module:
    """A model whose norms have seen something: their statistics are not those of a fresh one."""
    torch.manual_seed(0)
    model = create_model(name, image_size=16, in_channels=3, num_classes=4, **sizes).train()
    with torch.no_grad():
        for parameter in model.get_submodule(model.head_name).parameters():  # type: ignore[arg-type]
            nn.init.normal_(parameter, std=0.1)
        for _ in range(3):
            model(torch.randn(8, 3, 16, 16) * 2 + 0.5)
    return model.eval()


def images(count: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(count, 3, 16, 16, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 3, 2, 1, groups=2), nn.Linear(4, 6, bias=False)])
def test_a_layer_computes_what_whole_numbers_do(layer: nn.Module):
    model = nn.ModuleDict({"layer": layer})
    x = torch.randn(2, 4, 5, 5) if isinstance(layer, nn.Conv2d) else torch.randn(2, 4)
    grid = Grid(0.03, 100)
    weight = layer.weight.detach().clone()
    to_int8(model, {"layer": Grids(grid)})
    got = model["layer"](x)
    scale = weight.abs().flatten(1).amax(1) / 63
    whole = (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round()
    assert torch.equal(whole.to(torch.int8), model["layer"].weight)
    pixels = (x / 0.03).round().add(100).clamp(0, 255) - 100  # the border is zero, which is on the grid
    if isinstance(layer, nn.Conv2d):
        sums, shape = F.conv2d(pixels.double(), whole.double(), None, 2, 1, 1, 2), (1, -1, 1, 1)
        expected = sums * (0.03 * scale.double()).view(shape) + layer.bias.double().view(shape)
    else:
        expected = F.linear(pixels.double(), whole.double()) * 0.03 * scale.double()
    assert torch.allclose(got.double(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layers", "norms"),
    [("resnet_nano", 10, 9), ("mobilenetv2_nano", 20, 19), ("resnetv2_nano", 10, 3), ("densenet_nano", 24, 0)],
)
def test_norms_are_folded_where_they_follow_a_convolution_alone(name: str, layers: int, norms: int):
    model = living(name)
    x = images()[0]
    with torch.no_grad():
        before = model(x)
        found = read_graph(model, x)
        for layer, about in found.items():
            if about.norm:
                fold_norm(model, layer, about.norm)
        assert torch.allclose(model(x), before, atol=1e-4)
    assert len(found) == layers
    assert len([about.norm for about in found.values() if about.norm]) == norms


@pytest.mark.parametrize("name", ["lenet5", "resnet_nano", "vgg_nano", "mobilenetv2_nano", "vit_nano"])
def test_a_network_becomes_a_quarter_of_its_size_and_is_read_as_any_other(name: str, tmp_path: Path):
    model = living(name)
    int8, table = quantize(model, images())
    about = Portable(name, architecture_of(model), "image-classification", tuple("abcd"), facts={"x": 1})
    save_portable(tmp_path / "float", model, about)
    facts = {**about.facts, FACT: table.model_dump(mode="json")}
    save_portable(tmp_path / "int8", int8, Portable(**{**vars(about), "facts": facts}))
    _, read = load_portable(tmp_path / "int8")
    x = images()[0]
    with torch.no_grad():
        expected, got = model(x), read(x)
        assert torch.equal(got, int8(x))
    assert float((got - expected).norm() / expected.norm()) < 0.15
    state = load_file(tmp_path / "int8" / "model.safetensors")
    whole = sum(t.numel() for t in state.values() if t.dtype == torch.int8)
    assert whole > 0.8 * sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in read.parameters()) > 0.9 * sum(p.numel() for p in model.parameters())
    assert not any(name.endswith(".pkl") for name in (p.name for p in tmp_path.rglob("*")))
    assert precision_of(read, "auto") == "int8"
    with pytest.raises(UsageError, match="int8 weights, whose arithmetic is not bf16"):
        precision_of(read, "bf16")


def test_what_learns_with_the_rounding_is_what_comes_out():
    model = living("mobilenetv2_nano")
    x = images()
    rounded, norms = round_while_learning(model, x)
    target = torch.arange(8) % 4
    optimizer = torch.optim.SGD(rounded.parameters(), lr=0.05)
    losses = []
    for _ in range(8):
        loss = F.cross_entropy(rounded(x[0]), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    int8, table = learned_int8(rounded, norms)
    assert table.learned and quantized_layers(int8).keys() == table.layers.keys()
    with torch.no_grad():
        expected, got = rounded.eval()(x[1]), int8(x[1])
    assert float((got - expected).norm() / expected.norm()) < 0.02  # rounding may go the other way at a tie
    assert not quantized_layers(rounded), "the one that learns goes on"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantize") / "run"
    train(
        "lenet5",
        "digits",
        out,
        max_steps=60,
        batch_size=32,
        loggers="",
        augmentation={"rotate": 0, "scale": 0, "shift": 0},
    )
    return out


def test_the_verb_gives_a_run_that_predicts_evaluates_and_exports(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("orchard.compression.measure.ROUNDS", 3)
    table = compress(run, "quantize", out=tmp_path / "int8", aware=True, images=32, max_steps=5, optimizer={"lr": 1e-3})
    assert table["ratio"] > 3.4 and table["int8_layers"] == 5
    assert [row["stage"] for row in table["stages"]] == ["float32", "int8, calibrated", "int8, learned"]
    assert abs(table["before"]["test"]["accuracy"] - table["after"]["test"]["accuracy"]) < 0.1
    assert {*table["latency_by_engine"]["after"]} >= {"torch", "onnxruntime"}
    found = evaluate(tmp_path / "int8", "digits")["test"]
    assert found["accuracy"] == pytest.approx(table["after"]["test"]["accuracy"])
    (written,) = export(tmp_path / "int8", "onnx", tmp_path / "model.onnx")
    assert written.path.stat().st_size < 0.5 * (run / "model" / "model.safetensors").stat().st_size
    import onnx

    kinds = [node.op_type for node in onnx.load(written.path).graph.node]
    assert kinds.count("QuantizeLinear") == 5
    loaded = load(tmp_path / "int8")
    assert loaded.facts[FACT]["learned"] and len(quantized_layers(loaded.model)) == 5
    with pytest.raises(
        UsageError, match=r"holds int8 weights, which do not learn; go on from the model it was made of"
    ):
        train("lenet5", "digits", tmp_path / "more", start_from=str(tmp_path / "int8"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("quantize", "--data", "shakespeare"), 2, "shakespeare"),
        (("quantize", "--set", "images=0"), 2, "setting 'images'"),
        (("quantise",), 2, "did you mean quantize?"),
        (("distill",), 2, "setting 'student' is missing"),
        (("distill", "--set", "student=lenet55"), 2, "did you mean lenet5"),
    ],
)
def test_a_wrong_call_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
):
    got = orchard("compress", run, "--out", tmp_path / "out", "--method", *words)
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1] and error[-1].startswith("error: ")
    assert got == code
    assert not (tmp_path / "out").exists()


def test_a_damaged_table_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchard.compression.measure.ENGINES", ())
    monkeypatch.setattr("orchard.compression.measure.ROUNDS", 1)
    compress(run, "quantize", out=tmp_path / "int8", images=16)
    config = tmp_path / "int8" / "model" / "config.json"
    whole = json.loads(config.read_text())
    for change, said in (
        (lambda t: t["layers"]["c1"].update(input=[-1.0, 3]), "quantization.layers.c1.input"),
        (lambda t: t["layers"].update(c9=t["layers"]["c1"]), "this model has no layer 'c9'"),
        (lambda t: t["layers"]["c1"].update(norm="c3"), "'c3' of this model is no batch norm"),
        (lambda t: t["layers"].pop("c1"), "c1"),
    ):
        damaged = json.loads(json.dumps(whole))
        change(damaged["facts"][FACT])
        config.write_text(json.dumps(damaged))
        with pytest.raises(OrchardError, match=said) as caught:
            load(tmp_path / "int8")
        assert "\n" not in str(caught.value)
