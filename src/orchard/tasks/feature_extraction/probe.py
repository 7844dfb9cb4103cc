"""How well the vectors of texts tell classes apart: a linear probe (Alain and Bengio 2016, arXiv:1610.01644)."""

from __future__ import annotations

from typing import Any

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from orchard.data.labelled_text.sources import open_labelled_texts
from orchard.data.settings import LabelledTextSource
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.feature_extraction.pipeline import FeatureExtractor


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: LabelledTextSource) -> dict[str, Any]:
    """Accuracy and macro F1 of a logistic regression on features of the training texts, judged on `split`."""
    data = open_labelled_texts(source, settings)
    if data.target != "class" or data.paired:
        raise UsageError(f"{data.source}: features are judged by single texts with one class each")
    if "train" not in data.splits:
        raise UsageError(f"{data.source} has no training texts for the probe; name a set with splits, or give "
                         "--split test, which keeps some to learn from")  # fmt: skip
    extractor, texts = FeatureExtractor(loaded), base.pick_split(data.splits, split, data.source)
    found = {
        name: extractor([part.text(n)[0] for n in range(len(part))])
        for name, part in (("train", data.splits["train"]), (split, texts))
    }
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    said = probe.fit(found["train"], data.splits["train"].labels).predict(found[split])
    return {
        "count": len(texts),
        "accuracy": float((said == texts.labels).mean()),
        "macro_f1": float(f1_score(texts.labels, said, average="macro")),
    }
