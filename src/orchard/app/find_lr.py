"""The learning rate range test: which learning rates does a training bear? (Smith 2015, arXiv:1506.01186)"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.app.train import resolve_training, set_threads
from orchard.data.kinds import data_name, folder_name, kind_named
from orchard.errors import OrchardError, UsageError
from orchard.files import disk_error
from orchard.given import MODULE, given_name
from orchard.training.callbacks import Moment
from orchard.training.settings import flatten

if TYPE_CHECKING:
    from torch import nn

LOWEST, HIGHEST = 1e-5, 10.0
STEPS = 100
SMOOTHING = 0.9  # share of a mean that each step keeps of the one before
DIVERGED = 4.0  # times the lowest loss, from which nothing more is learned from the test
STEEP = 1.02  # how much the mean loss has to fall before its steepest place says something

FIXED = {  # settings that make the test what it is, which are not the caller's
    "epochs": 1e6,
    "max_steps": STEPS,
    "max_minutes": None,
    "log_every": STEPS,
    "evaluate_steps": STEPS + 1,
    "loggers": (),
    "devices": 1,
    "nodes": 1,
    "ema": None,
    "optimizer.lr": HIGHEST,
    "schedule.name": "range_test",
    "schedule.final_fraction": LOWEST / HIGHEST,
    "schedule.warmup_epochs": 0.0,
    "schedule.warmup_steps": None,
}


class _Enough(Exception):
    """The curve is there; ends the training before it is evaluated."""


class _Curve:
    """The callback that gathers rate and mean loss of every step, and ends the test."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.mean = 0.0

    def on_step(self, moment: Moment) -> None:
        self.mean = SMOOTHING * self.mean + (1 - SMOOTHING) * moment.metrics["loss"]
        mean = self.mean / (1 - SMOOTHING**moment.step)  # of as many steps as there were
        if not math.isfinite(mean) or mean > DIVERGED * min(self.losses, default=math.inf):
            raise _Enough
        self.rates.append(moment.metrics["lr"])
        self.losses.append(mean)
        if moment.step >= moment.steps:
            raise _Enough


def find_lr(
    model: str | nn.Module,
    data: Any,
    out: Path | str | None = None,
    *,
    recipe: str | None = None,
    task: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train for 100 steps while the learning rate rises from 1e-5 to 10, and say which rate suits.

    Args:
        model, data, recipe, task, settings: as `train` takes them, but for the learning rate, its schedule and how
            long the training lasts. Nothing that is learned is kept.
        out: the page with the curve; default: runs/MODEL-DATA-lr.html.

    Returns "steepest", the rate at which the mean loss falls fastest; "lowest", the rate at which it is lowest, beyond
    which a training breaks off; "suggested", the smaller of the first and a tenth of the second; the curve ("rates",
    "losses") and the "page". Raises UsageError for a wrong call and OrchardError where no rate makes the loss fall.
    """
    if given := FIXED.keys() & flatten(settings).keys():
        raise UsageError(f"{min(given)} is set by the range test itself, which takes {STEPS} steps; leave it out")
    resolved, learned = resolve_training(model, data, {**settings, **FIXED}, recipe, wanted=task)
    name, source = resolved.settings.model, resolved.settings.data.source
    if resolved.objects.data is None:
        kind_named(learned.data).require(source)
    import torch

    from orchard.app.out_of_memory import explained
    from orchard.tasks.base import warn
    from orchard.training.loop import Trainer
    from orchard.training.progress import Progress
    from orchard.training.run import RunFolder
    from orchard.training.state import DivergedError

    curve = _Curve()
    with tempfile.TemporaryDirectory() as folder, explained(resolved.settings, learned):
        run = RunFolder(Path(folder))
        job = learned.load(str(learned.job))(resolved, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        if len(job.phases) > 1:
            raise UsageError(f"{name} learns from several losses, and a range test follows one; set the rates by hand")
        set_threads(job, run)
        with contextlib.suppress(_Enough, DivergedError):
            Trainer(job, run, warn, [curve]).fit(Progress(job.per_step, job.unit, (), quiet=False))
    found = read_curve(curve.rates, curve.losses)
    base = Path("runs") / f"{folder_name(given_name(name, MODULE) or name, data_name(source))}-lr.html"
    page = _write_page(Path(out) if out else base, f"{name} on {data_name(source)}", curve, found)
    return {**found, "rates": curve.rates, "losses": curve.losses, "page": str(page)}


def read_curve(rates: Sequence[float], losses: Sequence[float]) -> dict[str, float]:
    """What a curve of mean losses says; OrchardError where the loss never falls."""
    end = min(range(len(losses)), key=losses.__getitem__, default=0)
    if not losses or max(losses[: end + 1]) < STEEP * losses[end]:
        raise OrchardError(
            f"the loss does not fall within {STEPS} steps at any learning rate up to {HIGHEST:g}; check the data "
            "(orchard data check), or train with a small rate for longer"
        )
    # The slope over the logarithm of the rate, whose steps are equal, over two neighbours on either side.
    slopes = {n: losses[min(n + 2, end)] - losses[max(n - 2, 0)] for n in range(end + 1)}
    steepest = min(slopes, key=slopes.__getitem__)
    suggested = min(rates[steepest], rates[end] / 10)
    return {name: float(f"{rate:.1e}") for name, rate in
            (("suggested", suggested), ("steepest", rates[steepest]), ("lowest", rates[end]))}  # fmt: skip


def _write_page(path: Path, name: str, curve: _Curve, found: dict[str, float]) -> Path:
    from orchard.report import charts

    points = [(math.log10(rate), loss) for rate, loss in zip(curve.rates, curve.losses, strict=True)]
    mark = (math.log10(found["suggested"]), f"suggested: {found['suggested']:g}")
    line = charts.Line("mean loss", points, "train")
    chart = charts.line_chart(
        "Loss while the learning rate rises", [line], x_label="learning rate, as a power of ten", y_label="loss",
        falling=True, mark=mark,
    )  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path, "name another place") from None
    template = Path(charts.__file__).with_name("find_lr.html.jinja")
    return charts.write_page(path, template, name=name, chart=chart, found=found, steps=len(points))
