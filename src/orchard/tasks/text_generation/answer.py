"""Answers of a language model: texts that continue prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from orchard.errors import UsageError
from orchard.inference.artifacts import TextArtifact
from orchard.tasks.text_generation.settings import Options


def answer(folder: Path, items: Sequence[str], options: Options, say: object) -> Iterator[TextArtifact]:
    """`count` texts for each prompt; a single one is given piece by piece as it is written."""
    if not items:
        raise UsageError('nothing is asked for; give a prompt, such as orchard generate RUN "Once upon a time"')
    from orchard.inference.loading import load
    from orchard.inference.sampling import Sampling, sampling_from
    from orchard.tasks.text_generation.pipeline import TextGenerator

    generator = TextGenerator(load(folder), precision=options.precision, say=say)  # type: ignore[arg-type]
    sampling = sampling_from(Sampling(repetition_penalty=options.repetition_penalty), options)
    how: dict[str, Any] = {"length": options.length, "sampling": sampling, "stop": options.stop, "seed": options.seed}
    if len(items) * options.count == 1:
        yield TextArtifact(items[0], pieces=(piece for _, piece in generator.stream(items, count=1, **how)))
        return
    for number, text in enumerate(generator(items, count=options.count, **how)):
        yield TextArtifact(items[number // options.count], text)
