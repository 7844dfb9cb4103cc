"""The one training loop.

It knows a model, a task (loss, figures, quality) and a feed of batches, nothing of pictures or words. Three rules
make it exact: the batch of a step is a function of the step, the randomness of a step is seeded from the step, and
everything else that a step leaves behind (weights, average, optimizer, pending sums) is in the checkpoint. So a run
that is killed at any moment and started again ends in the same bits.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.tasks.phases import Phase
from orchard.training.checkpoint import Checkpoints, disk_error
from orchard.training.optim import (
    average_of,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    rate_at,
    set_rate,
)
from orchard.training.progress import Progress
from orchard.training.run import Log, RunFolder
from orchard.training.settings import TrainSettings


class Task(Protocol):
    """What the loop asks of a task: whose turns a step has, and which figure chooses checkpoints."""

    name: str
    quality: str

    @property
    def logged(self) -> tuple[str, ...]: ...  # figures with a column in log.csv
    @property
    def phases(self) -> Sequence[Phase]: ...
    def observe(self, outputs: Any, batch: Any) -> dict[str, Tensor]: ...


class Feed(Protocol):
    """Where batches come from: `parts` micro-batches of a step, already on the device."""

    steps_per_epoch: int

    def steps(self, start: int) -> Iterator[list[Any]]: ...
    def name_records(self, batch: Any) -> str: ...


@dataclass
class State:
    """Where a training stands; saved as JSON with every checkpoint."""

    step: int = 0
    seconds: float = 0.0
    best_quality: float = -math.inf
    best_step: int = -1
    stale_epochs: int = 0
    stopped: str = ""  # why training ended before its last step
    sums: dict[str, float] = field(default_factory=dict)  # of the log line that is being gathered
    counted: int = 0


class Interrupted(OrchardError):
    """Ctrl-C or SIGTERM came; everything is saved."""


class DivergedError(OrchardError):
    """The loss is no longer a number."""


class Trainer:
    """Fits `model` to `task` on `feed`; `evaluate(model)` gives the validation figures."""

    def __init__(
        self,
        settings: TrainSettings,
        run: RunFolder,
        fabric: Fabric,
        model: nn.Module,
        task: Task,
        feed: Feed,
        evaluate: Callable[[nn.Module], Mapping[str, float]],
        warn: Callable[[str], None],
    ):
        self.settings, self.run, self.fabric, self.task, self.feed, self.evaluate = (
            settings, run, fabric, task, feed, evaluate
        )  # fmt: skip
        self.steps = math.ceil(settings.epochs * feed.steps_per_epoch)
        if settings.max_steps:
            self.steps = min(self.steps, settings.max_steps)
        self.warmup = round(settings.schedule.warmup_epochs * feed.steps_per_epoch)
        self.bare = model.to(fabric.device).eval()  # each evaluation leaves it so; a step begins with train()
        self.learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.average = average_of(self.bare, settings.ema) if settings.ema else None
        self.phases = tuple(task.phases)
        optimizers = [build_optimizer(self.bare, settings.optimizer, phase.learns) for phase in self.phases]
        if settings.compile:
            self.bare.compile()
        self.plain_optimizers = optimizers
        self.hooked = len(self.phases) == 1 and self.phases[0].through_forward
        if self.hooked:
            self.model, *self.optimizers = fabric.setup(self.bare, *optimizers)
        else:  # gradients that do not come through the module's own forward are averaged in `_gather`
            self.model, self.optimizers = self.bare, optimizers
        self.checkpoints = Checkpoints(run / "checkpoints", warn)
        self.state = State()
        self._restore()
        self._stop_signal = ""

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the average where there is one."""
        return self.average.module if self.average is not None else self.bare

    def fit(self, progress: Progress) -> State:
        """Train to the end, and leave the best weights in the folder `best`."""
        log = Log(self.run, self.state.step, self.task.logged) if self.fabric.is_global_zero else None
        began = time.monotonic() - self.state.seconds
        saved_at = time.monotonic()
        progress.start(self.steps, self.state.step, self.feed.steps_per_epoch)
        try:
            with self._signals():
                for parts in self.feed.steps(self.state.step):
                    if self.state.step >= self.steps or self.state.stopped:
                        break
                    self._step(parts)
                    self.state.seconds = time.monotonic() - began
                    step, per_epoch = self.state.step, self.feed.steps_per_epoch
                    progress.advance(step, self.state.sums.get("loss", 0.0) / max(self.state.counted, 1))
                    time_over, checkpoint_due, stop = self._decide(saved_at)
                    if time_over and step < self.steps:
                        self.state.stopped = f"the time allowed was over after {step} of {self.steps} steps"
                    last = step == self.steps or bool(self.state.stopped)
                    if step % self.settings.log_every == 0 or last:
                        self._log_training(log)
                    if step % per_epoch == 0 or last:
                        self._validate(log, progress)
                        last = last or bool(self.state.stopped)
                    if last or checkpoint_due or stop:
                        self._save(log)
                        saved_at = time.monotonic()
                    if stop and not last:
                        raise Interrupted(
                            f"{stop} after step {step} of {self.steps}; everything is saved in {self.run.path}, and "
                            f"the same command goes on from there"
                        )
        finally:
            progress.stop()
            if log:
                log.close()
        return self.state

    def _step(self, parts: list[Any]) -> None:
        """Every phase's turn, each over all micro-batches of the global batch."""
        step = self.state.step
        self._seed(step)
        if not self.bare.training:
            self.bare.train()
            self._hold_frozen_parts()
        spent = self.state.seconds / (self.settings.max_minutes * 60) if self.settings.max_minutes else 0.0
        rate = self.settings.optimizer.lr * rate_at(step, self.steps, self.warmup, self.settings.schedule, spent)
        figures: dict[str, float] = {"lr": rate}
        for number, phase in enumerate(self.phases):
            set_rate(self.plain_optimizers[number], rate)
            learning = self._give_turn(phase)
            for key, value in self._gather(phase, parts).items():
                figures[key] = figures.get(key, 0.0) + value
            norm = torch.nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
            if self.settings.clip_norm:
                torch.nn.utils.clip_grads_with_norm_(learning, self.settings.clip_norm, norm)
            figures[_of("grad_norm", number, phase)] = float(norm)
            if not math.isfinite(float(norm)):
                self._diverged(float(norm), parts[-1], "gradient")
            self.optimizers[number].step()
            self.optimizers[number].zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.bare)
        self.state.step += 1
        self.state.counted += 1
        for key, value in figures.items():
            self.state.sums[key] = self.state.sums.get(key, 0.0) + value

    def _give_turn(self, phase: Phase) -> list[nn.Parameter]:
        """The parameters that learn in this phase. Where phases take turns, no gradient is computed for the others."""
        if len(self.phases) == 1:
            return list(self.learning.values())
        for name, parameter in self.learning.items():
            parameter.requires_grad_(name.startswith(phase.learns))
        return [parameter for parameter in self.learning.values() if parameter.requires_grad]

    def _gather(self, phase: Phase, parts: list[Any]) -> dict[str, float]:
        """Add up the gradients of the micro-batches; returns the phase's loss and figures."""
        number = self.phases.index(phase)
        figures: dict[str, float] = {}
        for place, batch in enumerate(parts, 1):
            sync = (
                self.fabric.no_backward_sync(self.model, enabled=place < len(parts)) if self.hooked else nullcontext()
            )
            with sync:
                with self.fabric.autocast():
                    loss, outputs = phase.loss(self.model, batch, self.state.step)
                self.fabric.backward(loss / len(parts))
            if not math.isfinite(value := float(loss.detach())):
                self._diverged(value, batch)
            found: dict[str, Any] = {_of("loss", number, phase): value, **self.task.observe(outputs, batch)}
            for key, observed in found.items():
                figures[key] = figures.get(key, 0.0) + float(observed) / len(parts)
        if not self.hooked and self.fabric.world_size > 1:
            for parameter in self.learning.values():
                if parameter.grad is not None:
                    parameter.grad.copy_(self.fabric.all_reduce(parameter.grad, reduce_op="mean"))  # type: ignore[arg-type]
        return figures

    def _seed(self, step: int) -> None:
        """Dropout and its kin become a function of the step."""
        seed = (self.settings.seed << 32) + (self.fabric.global_rank << 48) + step
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also ask every other backend, each step
        if self.fabric.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _hold_frozen_parts(self) -> None:
        """A frozen trunk stays in evaluation mode, so that its norms' statistics do not move either."""
        if self.settings.freeze_trunk:
            for module in self.bare.modules():
                parameters = list(module.parameters(recurse=False))
                if parameters and not any(p.requires_grad for p in parameters):
                    module.eval()

    def _diverged(self, value: float, batch: Any, what: str = "loss") -> None:
        """Stop before the bad numbers reach the weights; what came before is saved."""
        sound = all(bool(t.isfinite().all()) for t in self.bare.state_dict().values())  # a norm's statistics may not be
        if self.fabric.is_global_zero and self.state.step and sound:
            self._write_checkpoint()
        saved = self.checkpoints.newest_first()
        kept = f"the last good state is saved in {saved[0]}" if saved else "nothing was learned before it"
        raise DivergedError(
            f"the {what} became {value} at step {self.state.step + 1} (epoch "
            f"{self.state.step / self.feed.steps_per_epoch:.2f}), in the batch of "
            f"{self.feed.name_records(batch)}; {kept}. Try a smaller --set optimizer.lr, or --set clip_norm=1"
        )

    def _log_training(self, log: Log | None) -> None:
        if not self.state.counted:
            return
        means = {key: total / self.state.counted for key, total in sorted(self.state.sums.items())}
        if self.fabric.world_size > 1:
            gathered = self.fabric.all_reduce(torch.tensor(list(means.values()), dtype=torch.float64), reduce_op="mean")
            means = dict(zip(means, gathered.tolist(), strict=True))  # type: ignore[union-attr]
        self.state.sums, self.state.counted = {}, 0
        if log:
            log.line({"split": "train", **self._position(), **means})

    def _position(self) -> dict[str, Any]:
        epoch = self.state.step / self.feed.steps_per_epoch
        return {"step": self.state.step, "epoch": round(epoch, 4), "seconds": round(self.state.seconds, 2)}

    def _validate(self, log: Log | None, progress: Progress) -> None:
        """Evaluate, and keep the weights if none were better; of equals the later count."""
        model = self.evaluated
        model.eval()
        with torch.compiler.set_stance("force_eager"):  # each new batch shape would be compiled again
            figures = self.evaluate(model)
        quality = figures[self.task.quality]
        if quality >= self.state.best_quality:
            self.state.stale_epochs = 0 if quality > self.state.best_quality else self.state.stale_epochs + 1
            self.state.best_quality, self.state.best_step = quality, self.state.step
            if self.fabric.is_global_zero:
                self._write_best()
        else:
            self.state.stale_epochs += 1
        if self.settings.patience and self.state.stale_epochs >= self.settings.patience:
            self.state.stopped = f"no better validation in {self.settings.patience} epochs"
        if log:
            log.line({"split": "validation", **self._position(), **figures})
        progress.evaluated(self._position()["epoch"], figures)

    def _write_best(self) -> None:
        best = Checkpoints(self.run / "best", self.checkpoints.warn)
        best.save(self.state.step, {"model": self.evaluated.state_dict()}, {"quality": self.state.best_quality})

    def best_weights(self) -> dict[str, Tensor]:
        """The weights of the best validation."""
        found = Checkpoints(self.run / "best", self.checkpoints.warn).load_newest()
        return found[0]["model"] if found else dict(self.evaluated.state_dict())

    def _save(self, log: Log | None) -> None:
        if log and self.fabric.is_global_zero:
            try:
                log.flush()  # first the lines, then the checkpoint that says they are there
            except OSError as error:
                raise disk_error(error, log.path, "make room and run the same command again") from None
            self._write_checkpoint()
        self.fabric.barrier()

    def _write_checkpoint(self) -> None:
        groups = {"model": self.bare.state_dict(), "optimizer": optimizer_tensors(self.bare, self.plain_optimizers)}
        if self.average is not None:
            groups["average"] = self.average.state_dict()
        self.checkpoints.save(self.state.step, groups, asdict(self.state))

    def _restore(self) -> None:
        found = self.checkpoints.load_newest()
        if found is None:
            return
        groups, facts = found
        try:
            self.bare.load_state_dict(groups["model"])
            load_optimizer_tensors(self.bare, self.plain_optimizers, groups["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(groups["average"])
        except (RuntimeError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise OrchardError(f"the checkpoints in {self.checkpoints.folder} are of another model: {first}") from None
        self.state = State(**facts)

    def _decide(self, saved_at: float) -> tuple[bool, bool, str]:
        """Is the time over, is a checkpoint due, and why should we stop, if at all?

        Clocks and signals differ between processes, decisions must not: the first decides, at every line of the log.
        """
        settings, step = self.settings, self.state.step
        if self.fabric.world_size > 1 and step % settings.log_every:
            return False, False, ""
        time_over = settings.max_minutes is not None and self.state.seconds >= settings.max_minutes * 60
        due = time.monotonic() - saved_at >= settings.checkpoint_minutes * 60
        if settings.checkpoint_steps and step % settings.checkpoint_steps == 0:
            due = True
        mine = (time_over, due, self._stop_signal)
        return self.fabric.broadcast(mine) if self.fabric.world_size > 1 else mine

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM ends the training after the step it is in; a second Ctrl-C at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stop_signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._stop_signal = "stopped by Ctrl-C" if number == signal.SIGINT else "stopped by a signal"

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: signals are its business
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _of(figure: str, number: int, phase: Phase) -> str:
    """The name of a figure that every phase has: the first phase's is the step's own."""
    return figure if number == 0 else f"{phase.name}_{figure}"
