"""Every setting of a training, its default, and where its value came from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator

from orchard.cards import Recipe
from orchard.data.settings import Settings, Source
from orchard.errors import UsageError
from orchard.given import Given
from orchard.training.renamed import new_settings


class OptimizerSettings(Settings):
    name: Literal["adamw", "adam", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "asgd", "adafactor"] = Field(
        "adamw", description="optimizer, as torch.optim has it"
    )
    lr: float = Field(1e-3, gt=0, description="largest learning rate, after the warm-up")
    weight_decay: float = Field(0.05, ge=0, description="decoupled for adamw; never on norms, biases and tables")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd and rmsprop, beta1 of the adam family")
    nesterov: bool = Field(True, description="whether the momentum of sgd is Nesterov's")
    beta2: float = Field(0.999, ge=0, lt=1, description="beta2 of the adam family, alpha of rmsprop, rho of adadelta")
    eps: float | None = Field(None, gt=0, description="epsilon of the denominator; default: torch.optim's own")
    centered: bool = Field(False, description="whether rmsprop subtracts the mean gradient")
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning rate of a layer over that of the layer above it")
    scales: dict[str, float] = Field(
        default_factory=dict, description="share of the learning rate for parameters whose names begin with a key"
    )


class ScheduleSettings(Settings):
    name: Literal[
        "cosine", "constant", "linear", "constant_linear", "polynomial", "step", "exponential", "inverse_sqrt",
        "one_cycle", "range_test",
    ] = Field(
        "cosine", description="how the learning rate changes after the warm-up; constant_linear: it falls in the "
        "second half; range_test: it only rises",
    )  # fmt: skip
    warmup_epochs: float = Field(0.0, ge=0, description="epochs in which the learning rate rises linearly from 0")
    warmup_steps: int | None = Field(None, ge=0, description="the same in steps; takes precedence")
    final_fraction: float = Field(
        0.01, ge=0, le=1, description="last learning rate (of range_test: the first) as a share of the largest"
    )
    power: float = Field(1.0, gt=0, description="power of the polynomial schedule")
    milestones: tuple[float, ...] = Field((), description="epochs at which the step schedule multiplies by gamma")
    gamma: float = Field(0.1, gt=0, le=1, description="factor of the step schedule; of the exponential, per epoch")


# What suits a sequence model that has learned, in a task's `fine_tuning`.
SEQUENCE_FINE_TUNING: Mapping[str, Any] = {
    "epochs": 3,
    "clip_norm": 1.0,
    "optimizer.lr": 3e-4,
    "optimizer.weight_decay": 0.01,
    "schedule.warmup_epochs": 0.1,
}


class TrainSettings(Settings):
    """What `orchard train` may be told, whatever the task; every field can be given as `--set key=value`.

    A task adds fields of its own in a subclass, and in `fine_tuning` (dotted keys) what suits a model that has learned:
    it takes the place of the recipe that begins from scratch.
    """

    fine_tuning: ClassVar[Mapping[str, Any]] = {}

    model: str = Field(description="name of a variant, or timm:NAME")
    data: Source
    architecture: dict[str, Any] = Field(default_factory=dict, description="fields of the variant's configuration")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed of weights, order, augmentation and dropout")
    epochs: float = Field(30, gt=0, lt=1e9, description="passes over the training split")
    max_steps: int | None = Field(None, gt=0, description="stop after this many optimizer steps, if that is sooner")
    max_minutes: float | None = Field(None, gt=0, description="stop after this time; the learning rate falls in time")
    batch_size: int = Field(64, gt=0, description="samples per optimizer step, over all devices")
    accumulate: int = Field(1, gt=0, description="micro-batches in which a batch is computed, to save memory")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the step; weights are fp32")
    compile: bool = Field(False, description="compile the step; pays from some minutes of training on")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the average of the weights that is evaluated")
    patience: int | None = Field(None, gt=0, description="stop after this many epochs without a better validation")
    evaluate_steps: int | None = Field(None, gt=0, description="steps between two evaluations; default: an epoch's")
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        ("tensorboard",), description="where metrics go beside log.csv; wandb and mlflow as their own variables say"
    )
    log_every: int = Field(10, gt=0, description="steps between two lines of log.csv")
    checkpoint_minutes: float = Field(1.0, ge=0, description="time between two checkpoints")
    checkpoint_steps: int | None = Field(None, gt=0, description="steps between two checkpoints, beside the time")
    start_from: str | None = Field(None, description="run or model folder whose weights are the start")
    threads: int | None = Field(None, gt=0, description="threads on a CPU; default: chosen by work and load")
    devices: int = Field(1, gt=0, description="processes or GPUs of each node")
    nodes: int = Field(1, gt=0, description="machines")
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)

    @field_validator("loggers", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """`wandb,mlflow`, as the command line has it, is a list of two; each counts once."""
        names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        return tuple(dict.fromkeys(names)) if isinstance(names, (list, tuple)) else names


SHARED = ("optimizer", "schedule")  # groups that are the same for every task
ADAM = ("adamw", "adam", "adamax")
READ_BY = {  # the optimizers and schedules that have a use for a setting which others ignore
    "optimizer.momentum": ("sgd", "rmsprop", *ADAM),
    "optimizer.nesterov": ("sgd",),
    "optimizer.beta2": (*ADAM, "rmsprop", "adadelta"),
    "optimizer.eps": (*ADAM, "rmsprop", "adadelta", "adagrad"),
    "optimizer.centered": ("rmsprop",),
    "schedule.final_fraction": ("cosine", "linear", "constant_linear", "polynomial", "range_test"),
    "schedule.power": ("polynomial",),
    "schedule.milestones": ("step",),
    "schedule.gamma": ("step", "exponential"),
}


@dataclass(frozen=True)
class Objects:
    """What Python hands in beside the settings, which know it by its name: nothing of it is stored."""

    data: Given | None = None
    module: Any = None  # an nn.Module that is trained in place of a model that has a name
    metrics: Mapping[str, Callable[[Any, Any], float]] | None = None  # of (logits, labels), by name


@dataclass(frozen=True)
class Resolved:
    """Settings with the origin of each: dotted key → "default", "recipe ...", "command" or a reason."""

    settings: TrainSettings
    origins: Mapping[str, str]
    objects: Objects = Objects()

    @property
    def source(self) -> str | Given:
        """What is opened: the data that was handed in, or the source that is named."""
        return self.objects.data or self.settings.data.source

    def to_json(self) -> dict[str, dict[str, Any]]:
        return {
            key: {"value": value, "origin": self.origins.get(key, "default")}
            for key, value in flatten(self.settings.model_dump(mode="json")).items()
        }

    def choose(self, key: str, value: Any, why: str) -> Resolved:
        """The same settings with the value of one dotted key chosen here, where it was left open or cannot stay."""
        settings = _replaced(self.settings, key.split("."), value)
        return replace(self, settings=settings, origins={**self.origins, key: why})


def _replaced(settings: Any, path: Sequence[str], value: Any) -> Any:
    inner = value if len(path) == 1 else _replaced(getattr(settings, path[0]), path[1:], value)
    return settings.model_copy(update={path[0]: inner})


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys; `architecture` and empty tables too."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested tables."""
    table: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        inner = table
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return table


def resolve(command: Mapping[str, Any], recipe: Recipe | None, recipe_name: str, kind: type[TrainSettings]) -> Resolved:
    """Defaults, then the recipe, then the command (dotted keys), as settings of `kind`.

    Raises UsageError for an unknown key or a wrong value.
    """
    flat: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer, origin in ((recipe.settings if recipe else {}, recipe_name), (command, "command")):
        for key, value in new_settings(flatten(layer)).items():
            flat[key] = value
            origins[key] = origin
    try:
        settings = kind.model_validate(nest(flat))
    except ValidationError as error:
        raise UsageError(explain(error, kind)) from None
    refuse_unread(settings, [key for key, origin in origins.items() if origin == "command"])
    return Resolved(settings, origins)


def refuse_unread(settings: TrainSettings, given: Iterable[str]) -> None:
    """UsageError for a setting that a person gave and that the chosen optimizer or schedule does not read."""
    for key in given:
        if key not in READ_BY:
            continue
        chosen = getattr(settings, key.partition(".")[0]).name
        if chosen not in READ_BY[key]:
            raise UsageError(f"setting '{key}' is read by {', '.join(READ_BY[key])}, not by {chosen}; leave it out")


def known_keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key that can be set."""
    keys: list[str] = []
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += known_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first fault as one line: which key, what was given, what is expected."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if not key:
        return str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = known_keys(kind)
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
        near += [one for one in known if difflib.get_close_matches(key, [one.rpartition(".")[2]], cutoff=0.7)]
        advice = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "docs/settings.md lists all"
        return f"unknown setting '{key}'; {advice}"
    if first["type"] == "missing":
        return f"setting '{key}' is missing"
    return f"setting '{key}': {first['msg'][0].lower() + first['msg'][1:]}, got {first['input']!r}"
