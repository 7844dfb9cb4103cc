"""An episode as a film: pictures of the environment, as an animated GIF and as a strip of a few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from orchard.data.environments import Environments, Episode
from orchard.errors import UsageError
from orchard.files import atomic, disk_error
from orchard.inference.gif import gif_bytes
from orchard.tasks.reinforcement_learning.acting import view_of
from orchard.tasks.reinforcement_learning.families import family_of

WIDTH = 320  # pixels, at most
RATE = 25  # pictures a second, at most; a GIF's clock counts in hundredths
MOST_PICTURES = 750  # half a minute; a longer episode is cut


@dataclass(frozen=True)
class Film:
    """Pictures of an episode's beginning, `seconds` apart, with what the agent thought in each, by name (T,)."""

    pictures: list[Image.Image]
    worth: dict[str, np.ndarray]
    seconds: float
    episode: Episode | None  # none where the episode was longer than the film

    def gif(self) -> bytes:
        """An animated GIF without end."""
        return gif_bytes(self.pictures, self.seconds)

    def strip(self, count: int) -> list[Image.Image]:
        """`count` of the pictures at even distances, the first and the last among them."""
        places = np.linspace(0, len(self.pictures) - 1, min(count, len(self.pictures)))
        return [self.pictures[round(place)] for place in places]


def film(network: nn.Module, source: str, seed: int, *, sampled: bool = False) -> Film:
    """Episode 0, played as `play` does and watched. Raises UsageError where the environment draws no pictures."""
    envs = Environments(source, 1, seed, film=True, view=view_of(network))
    agent = family_of(network).agent(network, 1, sampled)
    rate = envs.envs[0].metadata.get("render_fps") or RATE
    every = math.ceil(rate / RATE)
    pictures: list[Image.Image] = []
    worth: dict[str, list[float]] = {}
    finished: tuple[Episode, ...] = ()
    step = 0
    while not finished and len(pictures) < MOST_PICTURES:
        choice = agent.choose(envs)
        if step % every == 0:
            pictures.append(_picture(envs.picture()))
            for name, values in choice.worth.items():
                worth.setdefault(name, []).append(float(values[0]))
        made = envs.step(choice.actions)
        finished = made.finished
        step += 1
    envs.close()
    lines = {name: np.array(values) for name, values in worth.items()}
    return Film(pictures, lines, every / rate, finished[0] if finished else None)


def _picture(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(pixels)
    if picture.width <= WIDTH:
        return picture
    return picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.BILINEAR)


def write_film(film: Film, path: Path) -> None:
    """Write the GIF, whole or not at all. Raises UsageError for another ending, OrchardError for a full disk."""
    if path.suffix.lower() != ".gif":
        raise UsageError(f"{path}: a film is written as .gif; name it so")
    try:
        with atomic(path) as file:
            file.write(film.gif())
    except OSError as error:
        raise disk_error(error, path, "nothing of it was written") from None
