"""The student's training, with the model that is compressed as the teacher."""

from __future__ import annotations

import shutil
from pathlib import Path

from orchard.compression.distill.settings import Settings
from orchard.compression.subject import Compressed, Subject
from orchard.weights.portable import Portable


def run(subject: Subject, settings: Settings) -> Compressed:
    """The student, as its own training leaves it: the same as training it with `distillation.teacher`."""
    how = {f"distillation.{key}": value for key, value in settings.model_dump(exclude={"student"}).items()}
    teacher = {"distillation.teacher": str(subject.loaded.folder)}
    student = subject.train_other(settings.student, "student", teacher | how)
    found = student.metrics()
    subject.steps, subject.seconds = found.steps, found.seconds
    subject.steps_per_epoch = max(round(found.steps / found.epochs), 1)

    def write(folder: Path, about: Portable) -> None:
        shutil.copytree(student / "model", folder)

    return Compressed(write)
