"""Feature quantisation: the layer in both behaviours, in discriminators, and in training."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from stopping import stopped_after

from orchard.app.train import train
from orchard.cards import card_of
from orchard.data.batches import ImageBatch
from orchard.data.two_sides.loader import SidesBatch
from orchard.errors import UsageError
from orchard.models import create_model
from orchard.nn.feature_quantizer import PATIENCE, FeatureQuantizer, QuantizedFeatures
from orchard.tasks.image_to_image.attention import Attention
from orchard.tasks.image_to_image.settings import AttentionSettings
from orchard.tasks.unconditional_image_generation import dictionaries
from orchard.tasks.unconditional_image_generation.adversarial import Adversarial
from orchard.tasks.unconditional_image_generation.settings import AdversarialSettings
from orchard.weights.adapters.quantizing_discriminator import ADAPTER, step
from orchard.weights.golden import read_golden
from orchard.weights.official import export_official, load_official, read_official

GOLDEN = Path(__file__).parent / "golden/fqgan"
CASES = {"quantize_a": (12, 16, 1.0, 0.8), "quantize_fresh": (8, 10, 0.5, 0.7)}  # width, codes, commitment, decay
OFFICIAL = {"embed": "codebook", "cluster_size": "counts", "embed_avg": "sums"}


# The layer


@pytest.mark.parametrize("case", CASES)
def test_released_is_the_released_layer(case: str) -> None:
    """In three batches of training and in evaluation: vectors, codes, loss, perplexity, gradient, dictionary."""
    width, codes, commitment, decay = CASES[case]
    io, start = (load_file(GOLDEN / case / f"{part}.safetensors") for part in ("io", "params"))
    layer = FeatureQuantizer(codes, width, decay=decay, commitment=commitment, behaviour="released")
    layer.load_state_dict({ours: start[theirs].t().contiguous() for theirs, ours in OFFICIAL.items()})
    for stage in ("step0", "step1", "step2", "eval"):
        layer.train(stage != "eval")
        x = io[f"in.x_{stage}" if stage != "eval" else "in.x_step0"].requires_grad_()
        heard: list[QuantizedFeatures] = []
        assert layer(x, heard) is x  # features go on as they are
        (found,) = heard
        stored = {name: io.get(f"out.{stage}.{name}") for name in ("quantized", "diff", "perplexity", "indices")}
        torch.testing.assert_close(found.vectors, stored["quantized"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.loss[:, None], stored["diff"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.perplexity, stored["perplexity"], atol=1e-5, rtol=1e-5)
        if stage == "eval":
            break
        assert torch.equal(found.codes, stored["indices"])
        scalar = found.loss.mean() + (found.vectors * io["in.upstream_grad"]).sum()
        (gradient,) = torch.autograd.grad(scalar, x)
        torch.testing.assert_close(gradient, io[f"out.{stage}.grad_x"], atol=1e-5, rtol=1e-5)
        for theirs, ours in OFFICIAL.items():
            after = io[f"out.{stage}.after.{theirs}"].t()
            torch.testing.assert_close(getattr(layer, ours), after, atol=1e-5, rtol=1e-5)


def layer_of(behaviour: str) -> FeatureQuantizer:
    torch.manual_seed(0)
    return FeatureQuantizer(32, 4, decay=0.8, commitment=1.0, behaviour=behaviour)  # type: ignore[arg-type]


def test_unused_codes_blow_up_as_released_and_are_revived_in_the_paper() -> None:
    """Features of two kinds, far from where codes begin."""
    images = torch.randn(4, 4, 5, 5) * 0.1 + 3 * torch.randn(4, 1, 1, 1).sign()
    released, paper = (layer_of(behaviour).train() for behaviour in ("released", "paper"))
    for layer in (released, paper):
        layer(images, [])
    blown = released.codebook.abs().amax(1) > 1e3
    assert blown.sum() > 20 and torch.equal(blown, released.counts == 0)
    assert float(paper.codebook.abs().max()) < 5
    perplexity = {}
    for layer in (released, paper):
        for _ in range(3 * PATIENCE):
            heard: list[QuantizedFeatures] = []
            layer(images + 0.01 * torch.randn_like(images), heard)
        perplexity[layer.behaviour] = float(heard[0].perplexity)
    assert float(released.dead()) > 0.6 and float(paper.dead()) < 0.1
    assert perplexity["paper"] > 4 * perplexity["released"]


def test_paper_replaces_features_and_passes_the_gradient_through() -> None:
    layer, x = layer_of("paper").train(), torch.randn(2, 4, 3, 3, requires_grad=True)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    out = layer(x)
    torch.testing.assert_close(out, layer.lookup(torch.cdist(x.movedim(1, -1).flatten(0, 2), layer.codebook)
                                                 .argmin(1).view(2, 3, 3)), atol=1e-6, rtol=1e-5)  # fmt: skip
    weights = torch.randn_like(out)
    (gradient,) = torch.autograd.grad((out * weights).sum(), x)
    assert torch.equal(gradient, weights)
    # whoever does not listen changes nothing; evaluation changes nothing either
    layer.eval()(x, [])
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    layer.train()(x, [])
    assert not torch.equal(layer.codebook, before["codebook"])


def test_what_is_no_number_is_left_to_the_loss() -> None:
    heard: list[QuantizedFeatures] = []
    layer_of("paper").train()(torch.full((2, 4, 3, 3), torch.nan), heard)
    assert heard[0].loss.isnan().all()


# Discriminators


@pytest.mark.parametrize(("name", "more"), [
    ("biggan_nano", {}), ("sagan_nano", {}), ("stylegan2_nano", {}), ("biggan_nano", {"quantize": (0, 2)}),
])  # fmt: skip
def test_any_discriminator_with_blocks_takes_dictionaries(name: str, more: dict[str, Any]) -> None:
    """Its own weights stay what and where they are; in `paper` scores are others, in `released` the same."""
    torch.manual_seed(0)
    plain = create_model(name).discriminator.eval()
    labels = (torch.tensor([1, 2]),) if name != "stylegan2_nano" else ()
    images, blocks = torch.rand(2, 1, 28, 28), more.get("quantize", (1,))
    for behaviour in ("paper", "released"):
        quantizing = create_model(name, quantize=blocks, codes=8, quantization=behaviour).discriminator.eval()
        left = quantizing.load_state_dict(plain.state_dict(), strict=False)
        assert {key.split(".")[0] for key in left.missing_keys} == {"quantizers"} and not left.unexpected_keys
        heard: list[QuantizedFeatures] = []
        with torch.no_grad():
            scores = quantizing(images, *labels, heard=heard)
            assert torch.equal(scores, plain(images, *labels)) == (behaviour == "released")
            assert torch.equal(scores, quantizing(images, *labels))
        assert len(heard) == len(blocks) and all(found.loss.shape == (2,) for found in heard)


@pytest.mark.parametrize(("setting", "words"), [
    ({"quantize": (3,)}, "quantize names block 3, expected 0 to 2"),
    ({"quantization": "free"}, "quantization is 'free', expected paper or released"),
    ({"codes": 1}, "codes is 1, expected 2 or more"),
    ({"code_decay": 1.0}, "code_decay is 1, expected 0 to 1, and less than 1"),
    ({"commitment": -1.0}, "commitment is -1, expected 0 or more"),
])  # fmt: skip
def test_dictionaries_that_cannot_be_are_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_model("fq_biggan_nano", **setting)


def test_a_step_leaves_the_dictionaries_that_the_released_code_leaves() -> None:
    row = card_of("fq_biggan").references[0]
    case = ADAPTER.stored(read_golden(GOLDEN / "biggan_D_a"))
    pair = create_model(row.variant, **row.ours)
    load_official(pair, case.state, "fq-gan")
    _, _, after = step(pair, *(case.given(name) for name in ("x_fake", "y_fake", "x_real", "y_real")))
    pair.discriminator.load_state_dict(after, strict=False)
    state = export_official(pair, "fq-gan")
    stored = case.below("train.after")
    assert sum(name.endswith(".embed") for name in stored) == 4
    for name, tensor in stored.items():
        found = state[f"discriminator.{name}"]
        torch.testing.assert_close(found, tensor, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_official_files_tell_the_number_of_codes_and_begin_either_behaviour() -> None:
    small = {"generator_widths": (16,) * 3, "discriminator_widths": (16,) * 3, "noise": 30}
    theirs = export_official(create_model("fq_biggan_nano", codes=24, quantization="released", **small), "fq-gan")
    for behaviour in ("paper", "released"):
        found = read_official("fq_biggan_nano", theirs, None, {**small, "quantization": behaviour}).model
        assert found.config.codes == 24
        again = export_official(found, "fq-gan")
        assert again.keys() == theirs.keys() and all(torch.equal(again[name], theirs[name]) for name in theirs)


# Training

SMALL: dict[str, Any] = {
    "architecture": {"generator_widths": (8, 8), "discriminator_widths": (8, 8), "generator_attention": (),
                     "discriminator_attention": (), "halvings": 1, "noise": 6, "class_width": 4, "codes": 16},
    "image_size": 8, "batch_size": 16, "max_steps": 4, "log_every": 2, "generation.samples": 20, "epochs": 1,
    "optimizer.name": "adam", "evaluate_steps": 4, "checkpoint_steps": 1,
}  # fmt: skip


def test_digits_are_learned_with_a_dictionary_and_resumed_to_the_bit(tmp_path: Path) -> None:
    whole = train("fq_biggan_nano", "digits", tmp_path / "whole", **SMALL)
    with stopped_after(3, 4):
        train("fq_biggan_nano", "digits", tmp_path / "parts", **SMALL)
    assert train("fq_biggan_nano", "digits", tmp_path / "parts", **SMALL)["test"] == whole["test"]
    one, two = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert "discriminator.quantizers.1.codebook" in one and float(one["discriminator.quantizers.1.counts"].sum()) > 0
    with (tmp_path / "whole/log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["perplexity"]]
    assert rows and all(1 <= float(row["perplexity"]) <= 16 and 0 <= float(row["dead_codes"]) < 1 for row in rows)
    page = (tmp_path / "whole/report.html").read_text()
    assert "Perplexity of the dictionary" in page and "Dead codes" in page


@pytest.mark.parametrize("behaviour", ["paper", "released"])
def test_who_pays_and_whom_the_dictionary_learns_from(behaviour: str) -> None:
    """In `released` the generator's step moves the dictionary too, and its loss has the commitment in it."""
    torch.manual_seed(0)
    pair = create_model("fq_biggan_nano", quantization=behaviour, **SMALL["architecture"], image_size=8).train()
    quantizer = pair.discriminator.quantizers["1"]
    objective = Adversarial(AdversarialSettings(loss="hinge"), pair)
    assert objective.describe() == f"hinge loss, features by a dictionary of 16 codes ({behaviour})"
    learner, numbers = SimpleNamespace(model=pair), torch.arange(6)
    batch = ImageBatch(torch.rand(6, 1, 8, 8) * 2 - 1, numbers, numbers)
    for phase, calls in (("discriminator", 2), ("generator", 1 if behaviour == "released" else 0)):
        before = quantizer.codebook.clone()
        with patch.object(dictionaries, "loss_of", wraps=dictionaries.loss_of) as paid:
            loss, metrics = getattr(objective.losses, phase)(learner, batch, 0)
        assert loss.isfinite() and torch.equal(quantizer.codebook, before) == (calls == 0)
        assert (len(paid.call_args.args[0]) if paid.called else 0) == calls
        assert ("perplexity" in metrics) == (phase == "discriminator")


@pytest.mark.parametrize("behaviour", ["paper", "released"])
def test_translators_pay_and_teach_their_dictionaries_alike(behaviour: str) -> None:
    torch.manual_seed(0)
    small = {"image_size": 16, "blocks": 1, "width": 4, "discriminator_width": 4, "global_layers": 4, "local_layers": 3}
    model: Any = create_model("fq_ugatit_nano", quantization=behaviour, quantize=(1, 2), codes=8, **small).train()
    judges = model.discriminators["B"]
    assert sorted(judges["global"].quantizers) == ["1", "2"] and not judges["local"].quantizers
    quantizer = judges["global"].quantizers["2"]
    objective = Attention(AttentionSettings(), model)
    assert objective.describe().endswith(f"x attention, features by 4 dictionaries of 8 codes ({behaviour})")
    learner = SimpleNamespace(model=model)
    batch = SidesBatch(*(torch.rand(2, 2, 3, 16, 16) * 2 - 1), torch.arange(2))
    # Of both sides: real and generated pictures; two dictionaries each. A generator's step has the generated ones.
    for phase, calls in (("discriminators_loss", 8), ("generators_loss", 4 if behaviour == "released" else 0)):
        before = quantizer.codebook.clone()
        with patch.object(dictionaries, "loss_of", wraps=dictionaries.loss_of) as paid:
            loss, metrics = getattr(objective, phase)(learner, batch, 0)
        assert loss.isfinite() and torch.equal(quantizer.codebook, before) == (calls == 0)
        assert (len(paid.call_args.args[0]) if paid.called else 0) == calls
        assert ("perplexity" in metrics) == (phase == "discriminators_loss")
