"""What the outputs of a model with names for them say: one class, several classes, or numbers. Read without torch.

Which it is, and what it takes beside the weights (thresholds, mean and standard deviation), is kept in the model's
folder (`Portable.facts`); a model that says nothing names one class. Arrays and tensors are answered alike, so that a
session without torch and an exported file say what the model says.
"""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from orchard.errors import OrchardError

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-37  # probability below which float32 has no more numbers
TOP = 5  # classes that a program beside an exported file prints
Named = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Outputs(ABC):
    """Outputs (B, K) of a network, a column for each of `names`."""

    result: ClassVar[str]  # what answers are called in an exported file
    names: tuple[str, ...]

    @abstractmethod
    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """(B, K) probabilities, or numbers in the unit of the training data."""

    @abstractmethod
    def tensor(self, outputs: Tensor) -> Tensor:
        """The same of a tensor."""

    @abstractmethod
    def inverse(self, answers: Tensor) -> Tensor:
        """Outputs (B, K) that say `answers` (B, K), as far as numbers reach."""

    @abstractmethod
    def named(self, answers: Sequence[float], top: int) -> Named:
        """What is said of one image, from its row of answers: names with values, `top` at most where they rank."""

    @abstractmethod
    def lines(self, answered: bool) -> str:
        """The lines of a Python program, inside its loop over paths, that print `answer` (1, K): answers where
        `answered`, else outputs. Classes are in `classes`, facts in `facts`."""


@dataclass(frozen=True)
class OneClass(Outputs):
    """Logits of classes of which an image has one; they are divided by a temperature first (arXiv:1706.04599)."""

    result = "probabilities"
    temperature: float = 1.0

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        powers = np.exp((outputs - outputs.max(1, keepdims=True)) / self.temperature)
        return powers / powers.sum(1, keepdims=True)

    def tensor(self, outputs: Tensor) -> Tensor:
        return (outputs / self.temperature).softmax(1)

    def inverse(self, answers: Tensor) -> Tensor:
        return answers.clamp_min(TINY).log() * self.temperature

    def named(self, answers: Sequence[float], top: int) -> Named:
        best = np.argsort(-np.asarray(answers), kind="stable")[:top]
        return tuple((self.names[n], float(answers[n])) for n in best)

    def lines(self, answered: bool) -> str:
        scaled = "(answer - answer.max())" + (f" / {self.temperature!r}" if self.temperature != 1 else "")
        softmax = f"    answer = np.exp({scaled})\n    answer /= answer.sum()\n"
        return ("" if answered else softmax) + textwrap.indent(
            textwrap.dedent(f"""\
            print(path)
            for place in answer[0].argsort()[::-1][:{TOP}]:
                print(f"{{answer[0, place]:.7f}} {{classes[place]}}")"""),
            "    ",
        )


@dataclass(frozen=True)
class SeveralClasses(Outputs):
    """Logits of classes of which an image has any number: those whose probability reaches their threshold."""

    result = "probabilities"
    thresholds: tuple[float, ...] = ()

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.exp(-np.logaddexp(0, -outputs))
        return found

    def tensor(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def inverse(self, answers: Tensor) -> Tensor:
        return answers.clamp_min(TINY).log() - (1 - answers).clamp_min(TINY).log()

    def named(self, answers: Sequence[float], top: int) -> Named:
        """All labels of the image, most likely first."""
        found = [place for place, p in enumerate(answers) if p >= self.thresholds[place]]
        return tuple((self.names[n], float(answers[n])) for n in sorted(found, key=lambda n: -answers[n]))

    def lines(self, answered: bool) -> str:
        sigmoid = "    answer = np.exp(-np.logaddexp(0, -answer))\n"
        return ("" if answered else sigmoid) + textwrap.indent(
            textwrap.dedent("""\
            print(path)
            for place in answer[0].argsort()[::-1]:
                if answer[0, place] >= facts["thresholds"][place]:
                    print(f"{answer[0, place]:.7f} {classes[place]}")"""),
            "    ",
        )


@dataclass(frozen=True)
class Numbers(Outputs):
    """Standardised numbers: `mean`, `std` and `median` are those of the training data, in their own unit."""

    result = "numbers"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    median: tuple[float, ...] = ()

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = outputs * np.array(self.std) + np.array(self.mean)
        return found

    def tensor(self, outputs: Tensor) -> Tensor:
        return outputs * outputs.new_tensor(self.std) + outputs.new_tensor(self.mean)

    def inverse(self, answers: Tensor) -> Tensor:
        return (answers - answers.new_tensor(self.mean)) / answers.new_tensor(self.std)

    def named(self, answers: Sequence[float], top: int) -> Named:
        return tuple(zip(self.names, map(float, answers), strict=True))

    def lines(self, answered: bool) -> str:
        back = '    answer = answer * np.array(facts["std"]) + np.array(facts["mean"])\n'
        return ("" if answered else back) + textwrap.indent(
            textwrap.dedent("""\
            print(path)
            for name, value in zip(classes, answer[0], strict=True):
                print(f"{name} {value:.7g}")"""),
            "    ",
        )


class _OneFacts(BaseModel):
    target: Literal["class"] = "class"
    temperature: Annotated[FiniteFloat, Field(gt=0)] = 1.0


class _SeveralFacts(BaseModel):
    model_config = ConfigDict(extra="forbid")

    target: Literal["classes"]
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...]


class _NumberFacts(BaseModel):
    model_config = ConfigDict(extra="forbid")

    target: Literal["number"]
    mean: tuple[FiniteFloat, ...]
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]
    median: tuple[FiniteFloat, ...]


FORMS: Mapping[str, tuple[type[Outputs], type[BaseModel]]] = {
    "class": (OneClass, _OneFacts),
    "classes": (SeveralClasses, _SeveralFacts),
    "number": (Numbers, _NumberFacts),
}


def mean_outputs(members: Sequence[Outputs]) -> Outputs:
    """What the mean of several models' answers says, under the first one's names: each fact (thresholds, say) is the
    mean of theirs. All have the same form and the same names, in any order."""
    first = members[0]

    def mean(key: str) -> float | tuple[float, ...]:
        if isinstance(getattr(first, key), float):
            return float(np.mean([getattr(one, key) for one in members]))
        tables = [dict(zip(one.names, getattr(one, key), strict=True)) for one in members]
        return tuple(float(np.mean([table[name] for table in tables])) for name in first.names)

    facts: dict[str, Any] = {one.name: mean(one.name) for one in fields(first) if one.name != "names"}
    return type(first)(first.names, **facts)


def outputs_of(names: Sequence[str], facts: Mapping[str, Any], where: Path | str) -> Outputs:
    """What a model's outputs say, by its facts; OrchardError names the file `where` and the fact that is not right."""
    target = facts.get("target", "class")
    if not isinstance(target, str) or target not in FORMS:
        raise OrchardError(f"{where}: 'facts.target' is {str(target)[:40]!r}; expected {', '.join(FORMS)}")
    kind, form = FORMS[target]
    try:
        found = form.model_validate(dict(facts)).model_dump(exclude={"target"})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("facts", *map(str, first["loc"])))
        raise OrchardError(f"{where}: '{key}': {first['msg'][0].lower()}{first['msg'][1:]}") from None
    for key, values in found.items():
        if isinstance(values, tuple) and len(values) != len(names):
            raise OrchardError(f"{where}: 'facts.{key}' has {len(values)} values for {len(names)} names")
    return kind(tuple(names), **found)
