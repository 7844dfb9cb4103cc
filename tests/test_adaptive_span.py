"""Adaptive spans: what a mask leaves of attention, what is left out, and that training keeps them in bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from orchard.app.train import train
from orchard.inference.loading import load
from orchard.models import create_model
from orchard.nn.span_attention import AdaptiveSpan, from_spans, to_spans

TINY: dict[str, Any] = {"width": 12, "depth": 1, "heads": 2, "inner": 16, "span": 20, "ramp": 4}


def test_a_mask_falls_to_zero_behind_the_span() -> None:
    span = AdaptiveSpan(1, 20, ramp=4, init=0.25)  # five positions behind the newest
    assert span.mask(12)[0, 0].tolist() == [0.0] * 3 + [0.25, 0.5, 0.75] + [1.0] * 6


def test_nothing_changes_where_no_head_looks() -> None:
    torch.manual_seed(0)
    model: Any = create_model("adaptive_span_nano", **{**TINY, "span": 200}, vocabulary=9).eval()
    tokens, state = torch.randint(9, (2, 7)), model.start(2, 7)
    state.tensors = [torch.randn_like(tensor) for tensor in state.tensors]
    assert model.spans()[0].needed() == 200 - 192
    found = model.step(tokens, model_state := type(state)(list(state.tensors)))
    state.tensors[0][:, :-8] = 5.0
    torch.testing.assert_close(model.step(tokens, state), found, rtol=1e-5, atol=1e-5)
    assert model_state.tensors[0].shape == (2, 200, 12)


def test_spans_and_keys_are_two_ways_of_writing_the_same() -> None:
    scores = torch.randn(2, 3, 4, 10)  # of six positions before four tokens
    spans = to_spans(scores, 6)
    expected = torch.stack([scores[:, :, n, n : n + 6] for n in range(4)], dim=2)
    assert torch.equal(spans, expected)
    back = from_spans(spans)
    assert torch.equal(to_spans(back, 6), spans) and back.count_nonzero() == spans.count_nonzero()


def test_training_pays_for_spans_and_keeps_them_between_0_and_1(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat; a dog ran to the sea.\n" * 20)
    settings: dict[str, Any] = {
        **{f"architecture.{name}": value for name, value in TINY.items()}, "architecture.context": 8,
        "architecture.span_init": 0.02, "architecture.span_loss": 0.5, "batch_size": 4, "max_steps": 4,
        "text.tokenizer": "characters", "optimizer.name": "adam", "optimizer.lr": 0.05,
    }  # fmt: skip
    train("adaptive_span_nano", str(text), tmp_path / "run", **settings)
    model: Any = load(tmp_path / "run").model
    assert model.spans()[0].share.tolist() == [[[0.0]], [[0.0]]]  # as dear as this, and not below
