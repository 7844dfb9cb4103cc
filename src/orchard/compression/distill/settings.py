"""Settings of distillation, of the method and of a training with a teacher. Read without torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from orchard.cards import card_of
from orchard.data.settings import Settings as Strict


class TeachingSettings(Strict):
    """How a teacher's answers count."""

    temperature: float = Field(4.0, gt=0, description="by which the logits of both are divided")
    weight: float = Field(
        0.9, ge=0, le=1, description="share of the teacher's answers in the loss; labels have the rest"
    )
    hint: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        None, description="stage of the student and of the teacher, from 1, whose feature maps are compared"
    )
    hint_weight: float = Field(1.0, gt=0, description="weight of that comparison in the loss")


class Settings(TeachingSettings):
    """Who learns, and how. The rest of its training follows from its own recipe, and from what else is set."""

    student: str = Field(description="name of the model that learns")

    @field_validator("student")
    @classmethod
    def _known(cls, name: str) -> str:
        card_of(name)
        return name
