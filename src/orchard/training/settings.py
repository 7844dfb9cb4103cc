"""Every setting of a training, its default, and where its value came from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchard.cards import Recipe
from orchard.data.captions.contracts import CaptionSettings
from orchard.data.contracts import AugmentSettings
from orchard.errors import UsageError
from orchard.tasks.image_tokenization import TokenizationSettings


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class OptimizerSettings(Settings):
    name: Literal["adamw", "sgd"] = Field("adamw", description="sgd is with Nesterov momentum")
    lr: float = Field(1e-3, gt=0, description="largest learning rate, after the warm-up")
    weight_decay: float = Field(0.05, ge=0, description="decoupled for adamw; never on norms, biases and tables")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd, beta1 of adamw")
    beta2: float = Field(0.999, ge=0, lt=1, description="beta2 of adamw")
    layer_decay: float = Field(1.0, gt=0, le=1, description="rate of a layer over that of the layer above it")


class ScheduleSettings(Settings):
    name: Literal["cosine", "constant"] = Field("cosine", description="how the rate falls after the warm-up")
    warmup_epochs: float = Field(0.0, ge=0, description="epochs in which the rate rises from 0, linearly")
    final_fraction: float = Field(0.01, ge=0, le=1, description="last rate as a share of the largest")


class SourceSettings(CaptionSettings):
    source: str = Field(description="a named set, or the path of what holds the data: a folder, an archive, a file")


class TextSettings(Settings):
    """How text becomes tokens; a run or model that is gone on with keeps the tokenizer it has."""

    tokenizer: Literal["bytes", "characters", "chinese", "bpe", "wordpiece"] = Field(
        "characters", description="bytes; characters of the training text; GB 2312; byte-level BPE; WordPiece of a file"
    )
    vocabulary: int = Field(4096, ge=257, description="tokens of a BPE that is trained on the training text")
    files: tuple[str, ...] = Field(
        (), description="vocab.json and merges.txt of a BPE, or the vocab.txt of a WordPiece"
    )
    length: int = Field(32, ge=1, description="tokens of a caption; longer ones are cut")


class TrainSettings(Settings):
    """What `orchard train` may be told; every field can be given as `--set key=value`."""

    model: str = Field(description="name of a variant, or timm:NAME")
    data: SourceSettings
    architecture: dict[str, Any] = Field(default_factory=dict, description="fields of the variant's configuration")
    image_size: int | None = Field(None, ge=1, description="side of the square pictures the model sees")
    seed: int = Field(0, ge=0, description="seed of the weights, the order, the augmentation and the dropout")
    epochs: float = Field(30, gt=0, description="passes over the training split")
    max_steps: int | None = Field(None, gt=0, description="stop after this many optimizer steps, if that is sooner")
    max_minutes: float | None = Field(None, gt=0, description="stop after this time; the rate falls in time for it")
    batch_size: int = Field(64, gt=0, description="pictures per optimizer step, over all devices")
    accumulate: int = Field(1, gt=0, description="parts in which a batch is computed, to save memory; a CLIP takes 1")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the step; weights are fp32")
    compile: bool = Field(False, description="compile the step; pays from some minutes of training on")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the average of the weights that is evaluated")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    patience: int | None = Field(None, gt=0, description="stop after this many epochs without a better validation")
    log_every: int = Field(10, gt=0, description="steps between two lines of log.csv")
    checkpoint_minutes: float = Field(1.0, ge=0, description="time between two checkpoints")
    checkpoint_steps: int | None = Field(None, gt=0, description="steps between two checkpoints, beside the time")
    tokenizer: str | None = Field(None, description="run or model folder of the picture tokenizer a painter writes for")
    start_from: str | None = Field(None, description="run or model folder whose weights are the start")
    freeze_trunk: bool = Field(False, description="learn the head only")
    devices: int = Field(1, gt=0, description="processes or GPUs of each node")
    nodes: int = Field(1, gt=0, description="machines")
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    augmentation: AugmentSettings = AugmentSettings()
    text: TextSettings = TextSettings()
    tokenization: TokenizationSettings = TokenizationSettings()


@dataclass(frozen=True)
class Resolved:
    """Settings with the origin of each: dotted key → "default", "recipe ...", "command" or a reason."""

    settings: TrainSettings
    origins: Mapping[str, str]

    def to_json(self) -> dict[str, dict[str, Any]]:
        return {
            key: {"value": value, "origin": self.origins.get(key, "default")}
            for key, value in flatten(self.settings.model_dump(mode="json")).items()
        }

    def choose(self, key: str, value: Any, why: str) -> Resolved:
        """The same settings with one value that was left open chosen here."""
        return Resolved(self.settings.model_copy(update={key: value}), {**self.origins, key: why})


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


def resolve(command: Mapping[str, Any], recipe: Recipe | None, recipe_name: str) -> Resolved:
    """Defaults, then the recipe, then the command (dotted keys). An unknown key or wrong value is refused."""
    flat: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer, origin in ((recipe.settings if recipe else {}, recipe_name), (command, "command")):
        for key, value in flatten(layer).items():
            flat[key] = value
            origins[key] = origin
    try:
        return Resolved(TrainSettings.model_validate(nest(flat)), origins)
    except ValidationError as error:
        raise UsageError(_explain(error)) from None


def known_keys() -> list[str]:
    """Every dotted key that can be set."""

    def walk(model: type[BaseModel], prefix: str) -> list[str]:
        keys: list[str] = []
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += walk(kind, f"{prefix}{name}.")
            else:
                keys.append(prefix + name)
        return keys

    return walk(TrainSettings, "")


def _explain(error: ValidationError) -> str:
    """The first fault as one line: which key, what was given, what is expected."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known_keys(), n=3, cutoff=0.4) or known_keys()[:8]
        return f"unknown setting '{key}'; did you mean {' or '.join(near)}?"
    if first["type"] == "missing":
        return f"setting '{key}' is missing"
    return f"setting '{key}': {first['msg'][0].lower() + first['msg'][1:]}, got {first['input']!r}"
