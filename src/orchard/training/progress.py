"""What a person sees while a model learns: a bar on a terminal, a line per epoch elsewhere. All on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from orchard.console import Console

SHOWN_EVERY = 0.25  # seconds between two updates of the bar


class Progress:
    """The bar and the lines of one training. Silent in all processes but the first."""

    def __init__(self, batch_size: int, unit: str, figures: tuple[str, ...], *, quiet: bool):
        """`unit` is what a batch is counted in (pictures, tokens); `figures` are named after each evaluation."""
        self.batch_size = batch_size
        self.unit = unit
        self.figures = figures
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet)
        self._bar: Bar | None = None
        self._shown = 0.0
        self.first_step = 0
        self.step = 0
        self.began = 0.0

    def start(self, steps: int, step: int) -> None:
        self.first_step = self.step = step
        self.began = time.monotonic()
        if step:
            self.console.print(f"resuming after step {step} of {steps}")
        self._bar = Bar(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=self.quiet or not self.console.is_terminal,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("", total=steps, completed=step, words="")
        self._bar.start()

    def advance(self, step: int, loss: Callable[[], float]) -> None:
        """`loss` is asked a few times a second: the answer may have to wait for the device."""
        self.step = step
        now = time.monotonic()
        if self._bar and not self._bar.disable and now - self._shown >= SHOWN_EVERY:
            self._shown = now
            words = f"loss {loss():.4f}  {self.throughput:,.0f} {self.unit}/s"
            self._bar.update(self._task, completed=step, words=words)

    @property
    def throughput(self) -> float:
        """Training units per second since this process began, evaluation and saving included."""
        return (self.step - self.first_step) * self.batch_size / max(time.monotonic() - self.began, 1e-9)

    def evaluated(self, epoch: float, figures: Mapping[str, float]) -> None:
        self._say(epoch, "validation", figures)

    def learned(self, epoch: float, figures: Mapping[str, float]) -> None:
        """The figures of the latest step, at the end of an epoch that nothing is evaluated after."""
        self._say(epoch, "training", figures)

    def _say(self, epoch: float, split: str, figures: Mapping[str, float]) -> None:
        words = "  ".join(f"{name} {value:.4f}" for name, value in figures.items() if name in self.figures)
        self.console.print(f"epoch {epoch:g}: {split} {words}")

    def stop(self) -> None:
        if self._bar:
            self._bar.stop()
