"""What a classifier of texts looks at: how much each word spoke for the answer, as JSON and as one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchard.errors import OrchardError, UsageError, unknown
from orchard.files import disk_error

METHODS = ("integrated-gradients",)
TEMPLATE = Path(__file__).with_name("explain.html.jinja")


def explain(
    folder: Path,
    items: Sequence[Any],
    *,
    method: str | None,
    class_name: str | None,
    units: Sequence[str],
    data: Any,
    out: Path,
    model: Any,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """See `orchard.explain`; `items` are texts, of a model of pairs tuples of two."""
    if method is not None and method not in METHODS:
        raise unknown("method", method, METHODS)
    if units or data is not None or model is not None:
        raise UsageError("texts are explained one by one; leave out units, data and the module")
    if not items:
        raise UsageError('name a text to explain, as in orchard explain RUN "a wonderful film"')
    from orchard.inference.loading import load
    from orchard.report.charts import write_page
    from orchard.tasks.text_classification.pipeline import TextClassifier
    from orchard.tasks.text_classification.words import attribute, why_not

    classifier = TextClassifier(load(folder))
    names = classifier.loaded.classes
    if class_name is not None and class_name not in names:
        raise unknown("class", class_name, names)
    if why := why_not(classifier.model):
        raise OrchardError(why)
    found: list[dict[str, Any]] = []
    for item in items:
        text, pair = (str(item[0]), str(item[1])) if isinstance(item, tuple) else (str(item), None)
        (answer,) = classifier.predict([(text, pair)], len(names))
        if answer.error:
            found.append({"text": text, "error": answer.error})
            continue
        shares = dict(answer.top)
        name = class_name or next(iter(shares), names[0])
        words = attribute(classifier.model, classifier.inputs, text, pair, names.index(name))
        value = shares.get(name, 0.0)
        found.append({"text": text, "class": name, "probability": value, "words": [vars(word) for word in words]})
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, out, "name another folder with --out") from None
    page = write_page(
        out / "explain.html", TEMPLATE, title=f"What {folder.parent.name or folder.name} looks at", rows=found
    )
    return {"method": METHODS[0], "explanations": found, "page": str(page)}
