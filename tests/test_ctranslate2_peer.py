"""CTranslate2 as a peer: the same weights, the same tokens; what differs is not timed."""

import sys
from typing import Any

import pytest
import torch

from orchard.errors import OrchardError, UsageError
from orchard.inference.decoding import Decoder
from orchard.models import create_model
from orchard.tasks.text_generation import ctranslate2_peer
from orchard.tasks.text_generation.ctranslate2_peer import ctranslate2_sides
from orchard.tasks.text_generation.peers import bench_generation, transformers_twin, write
from orchard.weights.reference import randomise


def small_gpt() -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A GPT, prompts (2, 6), and the most likely 8 tokens after each."""
    torch.manual_seed(0)
    model = create_model("gpt2", vocabulary=90, context=40, width=64, depth=2, heads=4).eval()
    prompts = torch.randint(90, (2, 6))
    randomise(model, lambda: model(prompts), seed=0)
    decoder = Decoder(model, 2, 30, precision="fp32", compiled=False)
    return model, prompts, write(decoder, prompts, 8)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_both_sides_write_as_many_tokens_of_the_same_weights(precision):
    pytest.importorskip("ctranslate2")
    model, prompts, expected = small_gpt()
    sides, how = ctranslate2_sides(transformers_twin(model), prompts, expected, 12, precision)
    assert list(sides) == list(how) == ["peer_default", "peer_best"]
    assert how["peer_best"].startswith({"fp32": "float32", "int8": "int8"}[precision])
    decoder = Decoder(model, 2, 30, precision="fp32", compiled=False)
    assert torch.equal(sides["peer_default"](), write(decoder, prompts, 12))
    assert sides["peer_best"]().shape == (2, 12)


def test_a_peer_that_writes_something_else_is_not_timed(monkeypatch):
    pytest.importorskip("ctranslate2")
    model, prompts, expected = small_gpt()
    twin = transformers_twin(model)
    with pytest.raises(OrchardError, match="writes other tokens"):
        ctranslate2_sides(twin, prompts, expected.flip(1) + 1, 12, "fp32")
    monkeypatch.setattr(ctranslate2_peer, "INT8", 1e-6)
    with pytest.raises(OrchardError, match=r"in int8_\w+ differs by .* nothing was timed"):
        ctranslate2_sides(twin, prompts, expected, 12, "int8")


def test_the_bench_knows_it():
    pytest.importorskip("ctranslate2")
    found = bench_generation("gpt2_nano", "ctranslate2", tokens=26, rounds=1, precision="int8")
    assert found["peer"] == "ctranslate2" and found["peer_best"]["how"].startswith("int8") and found["ratio_best"] > 0
    with pytest.raises(UsageError, match="did you mean ctranslate2"):
        bench_generation("gpt2_nano", "ctranslate")


def test_without_it_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(OrchardError, match=r"pip install 'orchard\[peers\]'"):
        ctranslate2_sides(None, torch.ones(1, 1), torch.ones(1, 1), 1, "fp32")
