"""The proof's contracts, on a landmark made for them: nested outputs, losses, gradients, golden cases, adapters."""

import json
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
import toy_landmark
from safetensors.torch import save_file
from torch import nn

from orchard.cards import LossReference, Reference
from orchard.errors import OrchardError
from orchard.weights import proof
from orchard.weights.adapters import Adapter
from orchard.weights.golden import read_golden
from orchard.weights.gradients import gradients_of, probe
from orchard.weights.nested import select, tensors_of
from orchard.weights.reference import build_reference, package_of

LOSS = LossReference(
    "toy_landmark:losses",
    {"features": "x", "keep": "mask", "labels": "target"},
    {"total": "loss"},
)
ROW = Reference(
    "toy_landmark.Theirs",
    "theirs",
    "toy",
    theirs={"depth": 2},
    inputs={"features": "x", "keep": "mask"},
    outputs={"classes": "logits", "auxiliary": "layers"},
    loss=LOSS,
    adapter="toy",
)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """The landmark in the catalogue, and its adapter."""
    config = toy_landmark.ToyConfig()
    monkeypatch.setattr(proof, "configuration", lambda name, **overrides: replace(config, **overrides))
    monkeypatch.setattr(proof, "landmark_of", lambda name: toy_landmark.LANDMARK)
    adapt(monkeypatch, Adapter(targets=lambda config, inputs, generator: {"labels": torch.tensor([2, 0])}))


def adapt(monkeypatch, adapter: Adapter) -> None:
    module = ModuleType("orchard.weights.adapters.toy")
    module.ADAPTER = adapter
    monkeypatch.setitem(sys.modules, module.__name__, module)


# References that run


def test_outputs_inside_outputs_losses_and_gradients_are_compared():
    found = proof.compare(ROW)
    assert found.ok, found
    assert found.max_abs_difference < 1e-6 and found.loss_difference < 1e-6 and found.gradient_difference < 1e-5
    assert found.origin.startswith("toy_landmark")


@pytest.mark.parametrize("fault", ["boxes", "loss", "gradient"])
def test_a_fault_shows_where_it_is(fault):
    found = proof.compare(replace(ROW, ours={"fault": fault}))
    assert not found.ok and not found.problem
    assert (found.max_abs_difference > 1e-3) == (fault == "boxes")
    assert (found.loss_difference > 1e-4) == (fault in ("boxes", "loss"))
    assert (found.gradient_difference > 1e-3) == (fault != "boxes")


def test_one_output_by_its_path():
    row = replace(ROW, outputs={"auxiliary.1.boxes": "layers.1.boxes"}, loss=None)
    assert "no gradient reaches our 'classes" in proof.compare(row).problem  # what is not compared is not proven
    found = proof.compare(replace(row, outputs=row.outputs | {"classes": "logits"}))
    assert found.ok and found.loss_difference is None


def test_an_adapter_says_how_either_side_is_called(monkeypatch):
    adapter = Adapter(
        build=lambda depth: toy_landmark.Theirs(depth),
        call=lambda module, inputs: module(inputs["features"], mask=inputs["keep"]),
        run=lambda model, inputs: [model(**inputs).classes, model(**inputs).auxiliary[1]["boxes"] + 1],
    )
    adapt(monkeypatch, adapter)
    row = replace(ROW, reference="toy_landmark.no_class", inputs={}, loss=None)
    assert isinstance(build_reference(row), toy_landmark.Theirs)
    found = proof.compare(replace(row, outputs={"0": "logits", "1": "layers.1.boxes"}))
    assert found.max_abs_difference == pytest.approx(1, abs=1e-5) and found.gradient_difference < 1e-5


def test_paths_that_lead_nowhere_are_named():
    with pytest.raises(OrchardError, match=r"toy_landmark.Theirs has no 'layers.7'; at '7' it has 0, 1"):
        proof.compare(replace(ROW, outputs={"auxiliary.0": "layers.7"}))
    assert "our output has no 'boxes'" in proof.compare(replace(ROW, outputs={"boxes": "logits"})).problem
    with pytest.raises(OrchardError, match=r"no input 'frames' to give .* as 'x'; there are features, keep, labels"):
        proof.compare(replace(ROW, inputs={"frames": "x"}))
    wrong = replace(ROW, loss=replace(LOSS, outputs={"entropy": "loss"}))
    assert proof.compare(wrong).problem == "our loss has no 'entropy'; it has boxes, total"


def test_references_and_adapters_that_are_not_there_are_named(monkeypatch):
    with pytest.raises(OrchardError, match=r"there is no toy_landmark\.Their; expected the dotted path"):
        proof.compare(replace(ROW, reference="toy_landmark.Their"))
    with pytest.raises(OrchardError, match=r"'tv:resnet' names no reference"):
        proof.compare(replace(ROW, reference="tv:resnet"))
    with pytest.raises(OrchardError, match=r"no_package.Net needs no_package"):
        proof.compare(replace(ROW, reference="no_package.Net"))
    with pytest.raises(OrchardError, match=r"no adapter 'toi': expected orchard/weights/adapters/toi.py"):
        proof.compare(replace(ROW, adapter="toi"))
    assert [package_of(name) for name in ("timm:x", "hf:X", "golden:a/b", "torch.nn.GRU")] == [
        "timm", "transformers", "golden", "torch",
    ]  # fmt: skip


# Golden cases


@pytest.fixture
def stored(tmp_path):
    """What official code would have left: two networks in one file, losses, and gradients of two parameters."""
    torch.manual_seed(0)
    theirs = toy_landmark.Theirs(2)
    inputs = toy_landmark.example(toy_landmark.ToyConfig(), 3, None)
    labels = torch.tensor([2, 0, 1])
    result = theirs(inputs["features"], inputs["keep"], labels)
    result["loss"].backward()
    tensors = {"in.x": inputs["features"], "in.mask": inputs["keep"], "out.target": labels, "out.loss": result["loss"]}
    tensors |= {"out.logits": result["logits"], "out.boxes1": result["layers"][1].boxes}
    for name in ("half_gain", "body.1.weight"):
        tensors[f"out.grad.net.{name}"] = theirs.get_parameter(name).grad
    state = {f"net.{name}": tensor for name, tensor in theirs.state_dict().items()}
    state |= {"net.step": torch.tensor(3), "other.weight": torch.zeros(2)}

    def write(**changes):
        folder = tmp_path / "toy" / "a"
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach() for name, tensor in (tensors | changes).items()}, folder / "io.safetensors")
        save_file(state, folder / "params.safetensors")
        (folder / "meta.json").write_text(json.dumps({"repo": "a/toy", "commit": "1" * 40}))
        return tmp_path

    return write


GOLDEN_ROW = replace(
    ROW,
    reference="golden:toy/a",
    outputs={"classes": "logits", "auxiliary.1.boxes": "boxes1"},
    prefix="net.",
    loss=replace(LOSS, gradients={"total": "grad.net"}),
    adapter="",
)


def test_a_golden_case_gives_losses_and_the_gradients_that_it_stores(stored):
    found = proof.compare(GOLDEN_ROW, stored())
    assert found.ok, found
    assert found.loss_difference < 1e-6 and found.gradient_difference < 1e-5
    assert found.origin == "a/toy at 111111111111"
    bare = proof.compare(replace(GOLDEN_ROW, loss=None), stored())
    assert bare.ok and bare.loss_difference is None and bare.gradient_difference is None


def test_what_a_golden_case_stores_otherwise_is_found(stored):
    grown = read_golden(stored() / "toy" / "a").tensors["out.grad.net.half_gain"] * 1.01
    found = proof.compare(GOLDEN_ROW, stored(**{"out.grad.net.half_gain": grown}))
    assert not found.ok and found.gradient_difference > 1e-3 and found.max_abs_difference < 1e-6
    strange = proof.compare(GOLDEN_ROW, stored(**{"out.grad.net.gone": torch.ones(2)}))
    assert strange.problem == "the reference has a gradient for 'gone', which is made into no parameter of ours"
    with pytest.raises(OrchardError, match=r"the golden case has no tensor out\.boxes9"):
        proof.compare(replace(GOLDEN_ROW, outputs={"auxiliary.1.boxes": "boxes9"}), stored())
    assert not proof.compare(GOLDEN_ROW, stored(**{"out.loss": torch.tensor(9.0)})).ok


def test_an_adapter_brings_a_golden_case_into_our_form(stored, monkeypatch):
    folder = stored(**{"in.x": torch.zeros(3, 5)})
    assert not proof.compare(GOLDEN_ROW, folder).ok
    right = read_golden(stored() / "toy" / "a").tensors["in.x"]
    folder = stored(**{"in.x": right + 7})
    adapt(monkeypatch, Adapter(stored=lambda s: replace(s, tensors={**s.tensors, "in.x": s.tensors["in.x"] - 7})))
    assert proof.compare(replace(GOLDEN_ROW, adapter="toy"), folder).max_abs_difference < 1e-5


def test_weights_by_rule(golden):
    """The case has no weights: they follow from names, shapes and a seed."""
    stored = read_golden(golden / "dqn" / "cleanrl_atari")
    network = nn.Sequential(
        nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 6),
    )  # fmt: skip
    network.load_state_dict(
        {name.removeprefix("q.network."): t for name, t in stored.state.items() if name.startswith("q.")}
    )
    images = stored.given("observations_21").repeat_interleave(4, 2).repeat_interleave(4, 3) / 255
    torch.testing.assert_close(network(images), stored.computed("q_values"), atol=1e-5, rtol=0)


# The parts


def test_every_output_moves_the_probe():
    outputs = {"a": torch.ones(2, 3, requires_grad=True), "b.0": torch.ones(4, requires_grad=True)}
    found = torch.autograd.grad(probe(outputs | {"codes": torch.arange(3)}), list(outputs.values()))
    assert all((gradient.abs() > 1e-4).all() for gradient in found)
    assert torch.equal(probe(outputs), probe(dict(reversed(outputs.items()))))
    assert probe({"codes": torch.arange(3)}) is None
    masked = torch.tensor([1.0, float("-inf")], requires_grad=True)
    assert probe({"a": masked}).isfinite()


def test_tied_parameters_have_their_gradient_under_every_name():
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    model["b"].weight = model["a"].weight
    found = gradients_of(model, model["b"](model["a"](torch.ones(1, 2))).sum())
    assert found.keys() == {"a.weight", "b.weight"} and torch.equal(found["a.weight"], found["b.weight"])


def test_tensors_are_found_wherever_they_are():
    one, two = torch.zeros(1), torch.ones(2)
    value = {"a": [toy_landmark.Layer(one, two), None], "b": toy_landmark.Found(two, ({"boxes": one},)), "c": "word"}
    assert list(tensors_of(value)) == ["a.0.boxes", "a.0.keep", "b.classes", "b.auxiliary.0.boxes"]
    assert tensors_of(one) == {"": one}
    assert list(select(value, {"x": "a", "y": "b.classes"}, "it")) == ["x.0.boxes", "x.0.keep", "y"]
    with pytest.raises(OrchardError, match="it has no tensor at 'c'"):
        select(value, {"x": "c"}, "it")
