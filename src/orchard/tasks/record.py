"""The record of a task: all that the verbs, the command line and the documentation need to know of it.

Records are read without torch. What needs it is named by its place, `module:name` below the task's folder, and imported
when it is used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from orchard.training.metric import Metric


@dataclass(frozen=True)
class Field:
    """What a question or an answer is made of: its name and its kind.

    Kinds: text, image, classes, boxes, masks, embedding, audio, video, table, number.
    """

    name: str
    kind: str


def Text(name: str) -> Field:
    return Field(name, "text")


def Image(name: str) -> Field:
    return Field(name, "image")


def Classes(name: str) -> Field:
    return Field(name, "classes")


@dataclass(frozen=True)
class Task:
    """A task, in the field's terms.

    `data` is the kind of data it learns from (`orchard.data.kinds`), `takes` what one question is made of and `gives`
    what one answer is. `metric` selects checkpoints, `other_metrics` do where the data are of another form. The others
    are places in the task's folder: `settings` and `options` are pydantic models (of a training, and of how a model
    answers), `evaluation` one of how a trained model is judged (`evaluate --set evaluation.*`, or what stands in
    `evaluation_key` in place of "evaluation", where a training has these settings under that key), `job` a
    `Job`, `evaluate` the metrics of a trained model, `pipeline` what answers in Python and `answer` what answers on
    the command line, `importer` completes an official checkpoint, `peers` times beside other libraries, `entries` says
    what an export consists of, `pixel_entries` what one with the preprocessing inside does, and `compress` the job
    that goes on with a model that is compressed (`orchard.compression.subject.CompressJob`). `explain` shows what a
    model looks at, `image_encoder` makes an encoder of images of one that takes none, and `as_trunk` the start of a
    model that has it as its trunk; `play` is how a person plays against a model. With `own_metrics`, a
    person's functions of (logits, labels) are computed beside the task's own metrics. With `ensembles`, what
    answers and evaluates takes more models beside the first, as `others`.
    """

    name: str  # Hugging Face's pipeline name where it has one
    summary: str  # one line for `orchard train --help` and the docs
    data: str
    takes: tuple[Field, ...]
    gives: tuple[Field, ...]
    metric: Metric
    other_metrics: tuple[Metric, ...] = ()
    data_of: str | None = None  # of a model's name: the kind that it learns from, where the task's models differ
    special_data: tuple[str, ...] = ()  # kinds that are special forms of `data`, read as such where a source is one
    models_of: tuple[str, ...] = ()  # other tasks whose models answer this one as well
    settings: str = "settings:Settings"
    options: str = "settings:Options"
    evaluation: str | None = None
    evaluation_key: str = "evaluation"
    job: str | None = "job:Job"  # None: answered by models of other tasks, and not learned by itself
    evaluate: str = "job:evaluate_loaded"
    pipeline: str | None = None
    answer: str | None = None
    importer: str | None = None
    peers: str | None = None
    entries: str | None = None
    own_metrics: bool = False
    ensembles: bool = False
    pixel_entries: str | None = None
    compress: str | None = None
    explain: str | None = None
    image_encoder: str | None = None
    as_trunk: str | None = None
    play: str | None = None
    whole_batch: bool = False  # every sample of a batch is told from all others, so that a batch is not cut

    @property
    def folder(self) -> str:
        """The package of the task."""
        return f"orchard.tasks.{self.name.replace('-', '_')}"

    def metric_named(self, name: str) -> Metric:
        """One of its metrics by name."""
        return next(metric for metric in (self.metric, *self.other_metrics) if metric.name == name)

    def load(self, place: str) -> Any:
        """What stands at `module:name` in the task's folder."""
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(f"{self.folder}.{module}"), name)
