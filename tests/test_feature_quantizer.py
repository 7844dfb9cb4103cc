"""Feature quantisation: the layer in both behaviours, in discriminators, and in training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orchard.nn.feature_quantizer import DEAD, PATIENCE, FeatureQuantizer, QuantizedFeatures

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
    for step in ("step0", "step1", "step2", "eval"):
        layer.train(step != "eval")
        x = io[f"in.x_{step}" if step != "eval" else "in.x_step0"].requires_grad_()
        heard: list[QuantizedFeatures] = []
        assert layer(x, heard) is x  # features go on as they are
        (found,) = heard
        stored = {name: io.get(f"out.{step}.{name}") for name in ("quantized", "diff", "perplexity", "indices")}
        torch.testing.assert_close(found.vectors, stored["quantized"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.loss[:, None], stored["diff"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.perplexity, stored["perplexity"], atol=1e-5, rtol=1e-5)
        if step == "eval":
            break
        assert torch.equal(found.codes, stored["indices"])
        scalar = found.loss.mean() + (found.vectors * io["in.upstream_grad"]).sum()
        (gradient,) = torch.autograd.grad(scalar, x)
        torch.testing.assert_close(gradient, io[f"out.{step}.grad_x"], atol=1e-5, rtol=1e-5)
        for theirs, ours in OFFICIAL.items():
            after = io[f"out.{step}.after.{theirs}"].t()
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
    assert float(released.dead()) > 0.6 and float(paper.dead()) < 0.1, DEAD
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
