"""Classes by entailment: does "This text is about sports." follow from the text? (Yin et al. 2019, arXiv:1909.00161)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchard.data.labelled_text.sources import open_labelled_texts
from orchard.data.settings import LabelledTextSource
from orchard.errors import UsageError
from orchard.inference.loading import Loaded, load
from orchard.inference.outputs import OneClass
from orchard.tasks import base
from orchard.tasks.text_classification.pipeline import Answer, TextClassifier
from orchard.tasks.zero_shot_classification.settings import EvaluationSettings

TEMPLATE = "This text is about {}."
TINY = 1e-12


class ZeroShotClassifier:
    """Which of some classes is a text?

    >>> ZeroShotClassifier("runs/bert_nano-snli")("the striker scored twice", ["sports", "politics"])

    Raises UsageError for a model that has not learned which of two texts follows from the other.
    """

    def __init__(self, loaded: Loaded | str | Path):
        loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
        self.classifier = TextClassifier(loaded)
        names = [name.lower() for name in loaded.classes]
        follows = [name for name in names if name.startswith("entail")]
        if not self.classifier.paired or len(follows) != 1 or not isinstance(loaded.outputs, OneClass):
            learned = ", ".join(loaded.classes[:5])
            raise UsageError(f"{loaded.folder} has learned {learned}; classes without training are told by a model of "
                             "pairs with a class 'entailment'")  # fmt: skip
        self.follows = loaded.classes[names.index(follows[0])]
        against = [name for name in names if name.startswith("contradict")]
        self.against = loaded.classes[names.index(against[0])] if against else None

    def __call__(
        self, texts: str | Sequence[str], labels: Sequence[str], template: str = TEMPLATE, several: bool = False
    ) -> list[Answer]:
        """An answer for each text."""
        return list(self.predict([texts] if isinstance(texts, str) else texts, labels, template, several))

    def predict(self, texts: Sequence[str], labels: Sequence[str], template: str, several: bool) -> Iterator[Answer]:
        """The classes with their probabilities, most likely first.

        Of one text they add up to one: the odds that its sentence follows, over all classes. With `several`, each is
        that of following rather than being contradicted.
        """
        if len(set(labels)) < max(len(labels), 1 if several else 2):
            raise UsageError("name two classes or more, each once: --labels sports --labels politics")
        if "{}" not in template:
            raise UsageError(f"the template '{template}' has no {{}} where the class stands")
        hypotheses = [template.replace("{}", label) for label in labels]
        for text in texts:
            if not text.strip():
                yield Answer(text, error="the text is empty")
                continue
            answers = self.classifier.predict([(text, one) for one in hypotheses], len(self.classifier.loaded.classes))
            shares = [dict(answer.top) for answer in answers]
            follows = np.array([share[self.follows] for share in shares])
            if several:
                against = np.array(
                    [share[self.against] if self.against else 1 - share[self.follows] for share in shares]
                )
                found = follows / (follows + against)
            else:
                odds = follows / np.maximum(1 - follows, TINY)  # e to the logit of following against the rest
                found = odds / odds.sum()
            order = np.argsort(-found, kind="stable")
            yield Answer(text, tuple((labels[n], float(found[n])) for n in order))


def evaluate_loaded(
    loaded: Loaded, source: str, split: str, settings: LabelledTextSource, evaluation: EvaluationSettings | None = None
) -> dict[str, Any]:
    """Accuracy and macro F1 where the classes are those of the data, by their names."""
    from sklearn.metrics import f1_score

    data = open_labelled_texts(source, settings)
    if data.target != "class" or data.paired:
        raise UsageError(f"{data.source}: expected single texts with one class each")
    texts = base.pick_split(data.splits, split, data.source)
    template = (evaluation or EvaluationSettings()).template
    answers = ZeroShotClassifier(loaded).predict(
        [texts.text(n)[0] for n in range(len(texts))], data.classes, template, several=False
    )
    said = np.array([data.classes.index(answer.top[0][0]) for answer in answers])
    return {
        "count": len(texts),
        "accuracy": float((said == texts.labels).mean()),
        "macro_f1": float(f1_score(texts.labels, said, average="macro")),
    }
