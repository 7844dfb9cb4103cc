"""T5: distances fall into the published buckets, and what it writes is what transformers writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchard.inference.beam import Beam, beam_search, mean_penalty
from orchard.models import create_model
from orchard.nn.relative_bias import RelativeBias, bucket_of
from orchard.weights.golden import read_golden
from orchard.weights.official import load_official


@pytest.mark.parametrize(("bidirectional", "buckets", "distance"), [(True, 32, 128), (False, 32, 128), (True, 8, 16)])
def test_distances_fall_into_the_published_buckets(bidirectional: bool, buckets: int, distance: int) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    away = torch.arange(-140, 141)
    theirs = t5.T5Attention._relative_position_bucket(away, bidirectional, buckets, distance)
    assert torch.equal(bucket_of(away, buckets, distance, bidirectional), theirs)


def test_buckets_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="3 buckets cannot be halved twice"):
        RelativeBias(3, 8, 2, bidirectional=True)


@pytest.fixture(scope="module")
def case() -> Any:
    return read_golden(Path(__file__).parent / "golden" / "t5" / "t5_v10")


@pytest.fixture(scope="module")
def model(case: Any) -> Any:
    sizes = {"width": 24, "depth": 2, "heads": 3, "head_width": 8, "hidden": 40, "vocabulary": 40}
    made = create_model("t5_base", **sizes, context=24, buckets=8, distance=16, dropout=0.0)
    load_official(made, case.state, source="hf")
    return made.eval()


def test_steps_say_what_a_whole_target_says(model: Any, case: Any) -> None:
    source, mask = case.given("input_ids"), case.given("attention_mask").bool()
    target = torch.randint(1, 40, (3, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, state = model(source, target, mask), model.start(3, 7, source=source, source_mask=mask)
        parts = [model.step(piece, state) for piece in (target[:, :3], *target[:, 3:].split(1, dim=1))]
    assert torch.allclose(whole, torch.cat(parts, 1), atol=1e-5)


def test_a_beam_finds_the_published_texts(model: Any, case: Any) -> None:
    """Three hypotheses, scores divided by the length, until three have ended."""
    wanted = case.computed("gen.beam3_lp1.sequences")[:, 1:]
    with torch.no_grad():
        state = model.start(3, 8, source=case.given("input_ids"), source_mask=case.given("attention_mask").bool())
    beam = Beam(3, 8, penalty=mean_penalty(1.0), stop=lambda beam, progress: len(progress.ended) >= beam.size)
    found = beam_search(model, state, torch.zeros(3, dtype=torch.int64), end=1, beam=beam)
    for hypotheses, row, score in zip(found, wanted, case.computed("gen.beam3_lp1.scores"), strict=True):
        tokens = list(hypotheses[0].tokens)
        assert tokens == row[: len(tokens)].tolist()
        assert hypotheses[0].score == pytest.approx(float(score), abs=1e-4)
