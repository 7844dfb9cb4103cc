"""How a text encoder begins: fresh for a tokenizer and a head, or with the weights of a run, whatever its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.text_inputs import TextInputs
from orchard.data.text_tokenizer import FOLDER, read_text_tokenizer
from orchard.data.tokenizers import Tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import Loaded
from orchard.models import configuration, create_model, landmark_of
from orchard.tasks.base import on_device, read_start
from orchard.training.settings import Resolved
from orchard.weights.folders import model_folder, read_description

LENGTH = "length"  # a fact of a model's folder: tokens of a text that are read


def template_of(name: str) -> tuple[str, str]:
    """How the models of a variant want one text, and two, to be marked."""
    return landmark_of(name).model.template  # type: ignore[attr-defined, no-any-return]


def fit_length(resolved: Resolved) -> Resolved:
    """Where nobody said how many tokens are read, no more than the model's context."""
    settings: Any = resolved.settings
    if "text.length" in resolved.origins:
        return resolved
    if settings.start_from:
        context = read_description(model_folder(Path(settings.start_from))).architecture.get("context")
    else:
        known = {key: value for key, value in settings.architecture.items() if key == "context"}
        context = configuration(settings.model, **known).context
    if not isinstance(context, int) or context >= settings.text.length:
        return resolved
    return resolved.choose("text.length", context, "chosen: the model's context")


def start_encoder(settings: Any, tokenizer: Tokenizer, head: str, num_classes: int) -> nn.Module:
    """A model with the head of a task, fresh or with the weights of another run or model of this tokenizer.

    Of a model with another head, or with other classes, all but the head is taken over; parts in `may_be_fresh`, where
    the other model has none, begin anew too (a pooler). Raises UsageError for a
    configuration that cannot be built, OrchardError for weights that do not fit.
    """
    needed = {"vocabulary": tokenizer.vocabulary, "pad": tokenizer.specials["pad"], "head": head,
              "num_classes": num_classes}  # fmt: skip
    for key, value in needed.items():
        if settings.architecture.get(key, value) != value:
            given = settings.architecture[key]
            raise UsageError(
                f"architecture.{key} is {given}, expected {value}, which follows from task and data; leave it out"
            )
    try:
        if not settings.start_from:
            model = create_model(settings.model, **{**settings.architecture, **needed})
            return _checked(model, settings)
        folder, about, state = read_start(settings)
        known = about.architecture["vocabulary"]
        if known < tokenizer.vocabulary:  # an imported table may have rows that no token asks for
            raise OrchardError(
                f"{folder} holds a model of {known} tokens, its text tokenizer has {tokenizer.vocabulary}"
            )
        model = about.build(**{**settings.architecture, "head": head, "num_classes": num_classes})
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None
    own, prefix = model.state_dict(), f"{model.head_name}."
    same = about.architecture.get("head") == head and about.architecture.get("num_classes") == num_classes
    fresh = tuple(f"{part}." for part in getattr(model, "may_be_fresh", ()))
    wanted = {
        name for name in own if same or not (name.startswith(prefix) or (name.startswith(fresh) and name not in state))
    }
    if missing := sorted(name for name in wanted if name not in state or state[name].shape != own[name].shape):
        raise OrchardError(f"{folder} has no weights of the right shape for {missing[0]}, which {settings.model} needs")
    model.load_state_dict({**own, **{name: state[name] for name in wanted}})
    return _checked(model, settings)


def full_text(inputs: TextInputs) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and segments of one text of the length that is read, by which a model's cost is told."""
    tokens = torch.full((1, inputs.length), (inputs.pad + 1) % inputs.tokenizer.vocabulary)
    return tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(tokens)


def _checked(model: nn.Module, settings: Any) -> nn.Module:
    config: Any = model.config
    if settings.text.length > config.context:
        raise UsageError(f"text.length is {settings.text.length}, the context of {settings.model} {config.context}; "
                         f"give --set text.length={config.context} or a larger architecture.context")  # fmt: skip
    return model


def loaded_inputs(loaded: Loaded) -> tuple[nn.Module, TextInputs]:
    """A trained model on the fastest device here, and how it reads texts.

    Raises OrchardError for a folder without a text tokenizer, or with one of another model.
    """
    tokenizer = read_text_tokenizer(loaded.folder)
    config: Any = loaded.model.config
    if tokenizer.vocabulary > config.vocabulary:
        more = f"{tokenizer.vocabulary} tokens, its model {config.vocabulary}"
        raise OrchardError(f"{loaded.folder / FOLDER} has {more}; it is of another one")
    model, _ = on_device(loaded.model)
    length = loaded.facts.get(LENGTH, config.context)
    if not isinstance(length, int) or not 1 <= length <= config.context:
        raise OrchardError(f"{loaded.folder}: 'facts.{LENGTH}' is {length!r}; expected 1 to {config.context} tokens")
    return model, TextInputs(tokenizer, length, template_of(loaded.name))
