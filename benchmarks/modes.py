"""Modes: how many of 8 Gaussians on a ring and of 25 on a grid a small pair covers, for each adversarial objective.

    python benchmarks/modes.py --updates 2000 --out docs/modes.png

Every objective has the same pair of fully connected networks, the same number of updates (those of both networks
together, so that five of a critic leave fewer to the generator), one learning rate, Adam or the kind of optimizer that
its paper needs, and the same seeds. Points are images of one pixel and two channels, so that phases and losses are
those of training. Printed are the modes that are covered by 2,500 samples and the share of samples of high quality:
those within three standard deviations of a mode. A mode is covered by a tenth of its fair share of such samples. The
picture shows the first seed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import torch
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.models.generation.pair import AdversarialPair
from orchard.tasks.base import make_fabric
from orchard.tasks.unconditional_image_generation.adversarial import Adversarial
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.tasks.unconditional_image_generation.settings import OBJECTIVES, Settings
from orchard.training.step import Stepper

STD, SAMPLES, BATCH, WIDTH = 0.05, 2500, 128, 64
OPTIMIZER = {"name": "adam", "momentum": 0.5, "beta2": 0.9, "weight_decay": 0.0}
LR = 2e-3

angles = torch.arange(8) * torch.pi / 4
CENTRES = {
    "ring of 8": 2 * torch.stack([angles.cos(), angles.sin()], dim=1),
    "grid of 25": torch.tensor(list(product((-2.0, -1.0, 0.0, 1.0, 2.0), repeat=2))),
}


@dataclass(frozen=True)
class Point:
    """The configuration of a pair of two-dimensional points."""

    image_size: int = 1
    in_channels: int = 2
    noise: int = 8
    prior: str = "normal"


def pair_of_points() -> AdversarialPair:
    def layers(inputs: int, outputs: int) -> list[nn.Module]:
        hidden = (nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        return [*hidden, nn.Linear(WIDTH, outputs)]

    generator = nn.Sequential(*layers(Point.noise, 2), nn.Unflatten(1, (2, 1, 1)))
    return AdversarialPair(Point(), generator, nn.Sequential(nn.Flatten(), *layers(2, 1), nn.Flatten(0)))


def learned(name: str, centres: Tensor, updates: int, seed: int) -> Tensor:
    """Samples (SAMPLES, 2) of a generator after that many updates of both networks."""
    named = OBJECTIVES[name]
    group = {"adversarial": dict(named.values), "optimizer": {**OPTIMIZER, **named.optimizer, "lr": LR}}
    common: dict[str, Any] = {"data": {"source": "points"}, "schedule": {"name": "linear"}, "seed": seed}
    settings = Settings(model="points", **common, **group)
    torch.manual_seed(seed)
    pair = pair_of_points()
    objective = Adversarial(settings.adversarial, pair)
    job: Any = SimpleNamespace(
        model=GenerationLearner(pair, (2, 1, 1), objective.memory),
        phases=objective.phases,
        fabric=make_fabric(settings, torch.device("cpu")),
        settings=settings,
        head_epochs=0,
        optimizer_settings=lambda side: objective.optimizer_settings(side, settings.optimizer),
        train_mode=lambda learner: learner.train(),
    )
    drawn = torch.Generator().manual_seed(seed)

    def batch() -> list[ImageBatch]:
        chosen = torch.randint(len(centres), (BATCH,), generator=drawn)
        points = centres[chosen] + STD * torch.randn(BATCH, 2, generator=drawn)
        return [ImageBatch(points[:, :, None, None], torch.zeros(BATCH, dtype=torch.int64), torch.arange(BATCH))]

    steps = updates // sum(phase.repeat for phase in objective.phases)
    stepper, batches = Stepper(job, steps, steps), iter(batch, None)
    for step in range(steps):
        stepper.run(step, batches, 0.0)
    return pair.generate(pair.sample_noise(SAMPLES, torch.Generator().manual_seed(seed))).flatten(1)


def judged(samples: Tensor, centres: Tensor) -> tuple[int, float]:
    """The modes that are covered, and the share of samples of high quality."""
    nearest = torch.cdist(samples, centres).min(1)
    good = nearest.values <= 3 * STD
    counts = nearest.indices[good].bincount(minlength=len(centres))
    return int((counts >= 0.1 * len(samples) / len(centres)).sum()), float(good.float().mean())


def draw(found: dict[tuple[str, str], Tensor], out: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(name for name, _ in found))
    figure, axes = plt.subplots(2, len(names), squeeze=False, figsize=(1.3 * len(names), 2.9))
    for (name, data), samples in found.items():
        axis = axes[list(CENTRES).index(data)][names.index(name)]
        reach = float(CENTRES[data].max()) * 1.3
        axis.scatter(*CENTRES[data].T, s=14, marker="+", linewidths=0.6, color="tab:orange")
        axis.scatter(*samples.T, s=0.5, alpha=0.4, color="tab:blue", linewidths=0)
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
        axis.set_title(name if data == next(iter(CENTRES)) else "", fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    every = [  # that need neither styles nor codes
        name
        for name, named in OBJECTIVES.items()
        if named.family == "adversarial" and not {"mixing", "information"} & named.values.keys()
    ]
    parser.add_argument("--objectives", nargs="+", default=every)
    parser.add_argument("--out", type=Path, help="picture of the first seed's samples")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    pictures: dict[tuple[str, str], Tensor] = {}
    print("| objective | " + " | ".join(f"modes, {data} | high quality | seconds" for data in CENTRES) + " |")
    print("|---" + "|--:" * (3 * len(CENTRES)) + "|")
    for name in chosen.objectives:
        cells = []
        for data, centres in CENTRES.items():
            began = time.process_time()
            samples = [learned(name, centres, chosen.updates, seed) for seed in chosen.seeds]
            seconds = (time.process_time() - began) / len(samples)
            modes, shares = zip(*(judged(one, centres) for one in samples), strict=True)
            cells.append(f"{', '.join(map(str, modes))} | {statistics.mean(shares):.1%} | {seconds:.1f}")
            pictures[name, data] = samples[0]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if chosen.out:
        draw(pictures, chosen.out)


if __name__ == "__main__":
    main()
