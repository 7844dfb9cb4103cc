"""A text encoder is timed beside transformers' of its sizes; what is compared first agrees."""

from __future__ import annotations

import pytest

from orchard.app.bench import bench
from orchard.errors import UsageError
from orchard.tasks.text_classification import peers


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_text_encoder_is_timed_beside_its_peer(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "TEXTS", 12)
    found = bench("bert_nano", "transformers", mode, batch=4, rounds=1)
    assert found["peer"] == "transformers" and found["mode"] == mode
    assert found["ratio_best"] > 0 and found["ratio_default"] > 0


def test_what_cannot_be_timed_is_said() -> None:
    with pytest.raises(UsageError, match="no package has textcnn_nano"):
        bench("textcnn_nano", "transformers")
    with pytest.raises(UsageError, match="classifies texts"):
        bench("bert_nano", "transformers", "generation")
