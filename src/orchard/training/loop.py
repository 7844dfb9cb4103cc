"""The one training loop.

It knows a model, phases (losses of some of its parameters) and a feed of batches, nothing of images or text. Three
rules make it exact: the batch of a step is a function of the step, the randomness of a step is seeded from it, and
everything else that a step leaves behind (weights, average, optimizer, pending sums) is in the checkpoint. So a run
that is killed at any moment and started again ends in the same bits.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from pydantic import TypeAdapter
from torch import Tensor, nn

from orchard.errors import OrchardError, first_line
from orchard.training.callbacks import ON_EPOCH, ON_STEP, Moment, call
from orchard.training.checkpoint import Checkpoints
from orchard.training.feed import Feed
from orchard.training.learner import Learner
from orchard.training.loggers import Loggers
from orchard.training.metric import Metric
from orchard.training.optim import (
    average_of,
    build_optimizer,
    layer_groups,
    learning_rate_factor,
    load_optimizer_tensors,
    optimizer_tensors,
    owners,
    set_learning_rate,
)
from orchard.training.phases import Phase, batches_before
from orchard.training.progress import Progress
from orchard.training.renamed import STATE, new_tensors
from orchard.training.run import Log, RunFolder
from orchard.training.settings import OptimizerSettings, TrainSettings, flatten
from orchard.weights.portable import not_finite

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Trainable(Protocol):
    """What the loop asks of a training (`orchard.tasks.base.Job` is one)."""

    model: nn.Module  # all that learns: a model, or a `Learner`
    fabric: Fabric

    @property
    def metric(self) -> Metric: ...  # by which checkpoints are selected
    @property
    def settings(self) -> TrainSettings: ...
    @property
    def head_epochs(self) -> float: ...
    @property
    def phases(self) -> tuple[Phase, ...]: ...
    @property
    def logged(self) -> Sequence[str]: ...  # metrics with a column in log.csv
    def optimizer_settings(self, name: str) -> OptimizerSettings: ...
    def feed(self) -> Feed: ...
    def evaluate(self, model: nn.Module) -> Mapping[str, float]: ...
    def write_model(self, model: nn.Module, run: RunFolder) -> None: ...
    def train_mode(self, model: nn.Module) -> None: ...


@dataclass
class State:
    """Where a training stands; saved as JSON with every checkpoint."""

    step: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf  # of the selection metric, its sign turned where smaller is better
    best_step: int = -1
    stale_epochs: int = 0
    stopped: str = ""  # why training ended before its last step
    sums: dict[str, float] = field(default_factory=dict)  # of the log line that is being gathered
    counted: int = 0

    def facts(self) -> dict[str, Any]:
        """As JSON has it, which knows no infinity."""
        return asdict(self) | {"best_score": self.best_score if math.isfinite(self.best_score) else None}

    @classmethod
    def read(cls, facts: Mapping[str, Any], where: Path) -> State:
        """The inverse of `facts`. OrchardError where any is missing: the weights would be trained on from step 0."""
        found = {STATE.get(key, key): value for key, value in facts.items()}
        if found.get("best_score", 0) is None:
            found["best_score"] = -math.inf
        names = {one.name for one in fields(cls)}
        try:
            if found.keys() != names:
                raise ValueError(f"expected {', '.join(sorted(names))}")
            return TypeAdapter(cls).validate_python(found)
        except ValueError as error:
            raise OrchardError(
                f"the facts in the newest checkpoint in {where} are not of the form that is written: "
                f"{first_line(error)}; remove that checkpoint to go on from the one before it"
            ) from None


class Interrupted(OrchardError):
    """Ctrl-C or another signal came; everything is saved. The exit code is the one that shells give to it."""

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.exit_code = 128 + number


class DivergedError(OrchardError):
    """The loss is no longer a number."""


class Trainer:
    """Fits a job's model on its feed, and selects the weights with the best validation."""

    def __init__(self, job: Trainable, run: RunFolder, warn: Callable[[str], None], callbacks: Sequence[Any] = ()):
        self.callbacks = callbacks
        settings, fabric, phases = job.settings, job.fabric, tuple(job.phases)
        self.job, self.run, self.settings, self.fabric, self.phases = job, run, settings, fabric, phases
        self.bare = job.model.to(fabric.device).eval()  # each evaluation leaves it so; a step begins in training mode
        self.learning = {name: parameter for name, parameter in job.model.named_parameters() if parameter.requires_grad}
        self.feed = job.feed()
        self.steps_per_epoch = steps_per_epoch(self.feed, phases)
        self.steps = math.ceil(settings.epochs * self.steps_per_epoch)
        if settings.max_steps:
            self.steps = min(self.steps, settings.max_steps)
        schedule = settings.schedule
        self.warmup = schedule.warmup_steps or round(schedule.warmup_epochs * self.steps_per_epoch)
        self.average = average_of(self.bare, settings.ema) if settings.ema else None
        self.head_steps = round(job.head_epochs * self.steps_per_epoch)
        head = layer_groups(self.bare)[-1] if self.head_steps else ()
        self.below_head = [p for name, p in self.learning.items() if not name.startswith(head)] if head else []
        names = dict.fromkeys(phase.optimizer for phase in phases)
        self.spans = {name: _span(phases, name) for name in names}
        self.rates = {name: job.optimizer_settings(name) for name in names}
        self.plain_optimizers = {
            name: build_optimizer(self.bare, self.rates[name], _prefixes(phases, name)) for name in names
        }
        for phase in phases:
            owners(self._in_use(phase.begins))
        if settings.compile:
            self.bare.compile()
        self.hooked = len(phases) == 1 and phases[0].through_forward
        self.optimizers: dict[str, Any] = dict(self.plain_optimizers)
        self.model: Any = self.bare
        if self.hooked:  # other gradients do not come through the module's own forward; `_accumulate` averages them
            self.model, *wrapped = fabric.setup(self.bare, *self.plain_optimizers.values())
            self.optimizers = dict(zip(names, wrapped, strict=True))
        self.checkpoints = Checkpoints(run / "checkpoints", warn)
        self.state = State()
        self.sums: dict[str, Tensor] = {}  # of the log line that is being gathered; on the device
        self.of_step: dict[str, Tensor] = {}  # the metrics of the latest step
        self._restore()
        self._stop_signal = 0
        self.validation: Mapping[str, float] = {}  # the metrics of the latest evaluation
        self._evaluation = 0.0  # seconds that it took

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the average where there is one."""
        return self.average.module if self.average is not None else self.bare

    def fit(self, progress: Progress) -> State:
        """Train to the end, and leave the best weights in the folder `best`."""
        log = self._open_log() if self.fabric.is_global_zero else None
        began = time.monotonic() - self.state.seconds
        saved_at = time.monotonic()
        progress.start(self.steps, self.state.step)
        batches = self.feed.batches(batches_before(self.phases, self.state.step))
        try:
            with self._signals():
                while self.state.step < self.steps and not self.state.stopped:
                    self._step(batches)
                    self.state.seconds = time.monotonic() - began
                    step, per_epoch = self.state.step, self.steps_per_epoch
                    progress.advance(step, self._mean_loss)
                    self._call_back(ON_STEP, self.of_step)
                    time_over, checkpoint_due, stop = self._decide(saved_at)
                    if time_over and step < self.steps:
                        self.state.stopped = f"the time allowed was over after {step} of {self.steps} steps"
                    last = step == self.steps or bool(self.state.stopped)
                    if step % self.settings.log_every == 0 or last or self._borders(step):
                        self._log_training(log)
                    due = step % (self.settings.evaluate_steps or per_epoch) == 0
                    if due and step <= self.phases[0].begins and not last:
                        progress.learned(self._position()["epoch"], {k: float(v) for k, v in self.of_step.items()})
                    elif due or last:
                        self._validate(log, progress)
                        now = time.monotonic() - began
                        self._evaluation, self.state.seconds = now - self.state.seconds, now
                        self._call_back(ON_EPOCH, self.validation)
                        last = last or bool(self.state.stopped)
                    if last or checkpoint_due or stop:
                        self._save(log)
                        saved_at = time.monotonic()
                    if stop and not last:
                        by = "Ctrl-C" if stop == signal.SIGINT else "a signal"
                        raise Interrupted(
                            f"stopped by {by} after step {step} of {self.steps}; everything is saved in "
                            f"{self.run.path}, and the same command goes on from there",
                            stop,
                        )
        finally:
            progress.stop()
            if log:
                log.close(finished=self.state.step >= self.steps or bool(self.state.stopped))
        return self.state

    def _open_log(self) -> Log:
        step, settings = self.state.step, flatten(self.settings.model_dump(mode="json"))
        loggers = Loggers(self.settings.loggers, self.run, step + 1, settings, self.checkpoints.warn)
        return Log(self.run, step, self.job.logged, loggers)

    def _step(self, batches: Iterator[list[Any]]) -> None:
        """Every phase that happens in this step, each over all micro-batches of the global batch."""
        step = self.state.step
        parts = next(batches)
        self.of_step = {}
        self._seed(step)
        if not self.bare.training or step == self.head_steps:
            self.job.train_mode(self.bare)
            if step < self.head_steps:
                self._rest_below_head()
        spent = self._spent / (self.settings.max_minutes * 60) if self.settings.max_minutes else 0.0
        rates = {}
        for name, optimizer in self._in_use(step).items():
            begins, ends = self.spans[name]
            factor = learning_rate_factor(
                step - begins, (ends or self.steps) - begins, self.warmup, self.settings.schedule,
                per_epoch=self.steps_per_epoch, spent=spent,
            )  # fmt: skip
            rates[name] = self.rates[name].lr * factor
            set_learning_rate(optimizer, rates[name])
        self._add({"lr": torch.tensor(next(iter(rates.values()), 0.0), dtype=torch.float64)}, 1)
        for phase in self.phases:
            if not phase.happens(step):
                continue
            for repetition in range(phase.repeat):
                if repetition and phase.fresh_batch:
                    parts = next(batches)
                self._update(phase, parts)
        if isinstance(self.bare, Learner):
            self.bare.after_step(step + 1)
        if self.average is not None:
            self.average.update_parameters(self.bare)
        for key, value in self.of_step.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value
        self.state.step += 1
        self.state.counted += 1
        if self._borders(self.state.step):
            for name in self.plain_optimizers.keys() - self._in_use(self.state.step).keys():
                self.plain_optimizers[name].state.clear()  # of one that is over, or has not begun and has none

    def _in_use(self, step: int) -> dict[str, torch.optim.Optimizer]:
        """The optimizers of the phases that `step` lies in."""
        names = {phase.optimizer for phase in self.phases if phase.lasts(step)}
        return {name: optimizer for name, optimizer in self.plain_optimizers.items() if name in names}

    def _borders(self, step: int) -> bool:
        """Does a phase begin or end before `step`?"""
        return any(step in (phase.begins, phase.ends) for phase in self.phases)

    def _update(self, phase: Phase, parts: list[Any]) -> None:
        """One update of one phase's parameters."""
        learning = self._enable_gradients(phase)
        losses = self._accumulate(phase, parts)
        if self.state.step < self.head_steps:
            for parameter in self.below_head:
                parameter.grad = None
        norm = torch.nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
        if self.settings.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(learning, self.settings.clip_norm, norm)
        if not math.isfinite(float(norm)):  # the one place in a step that waits for the device
            self._diverged(float(norm), losses, parts)
        self._add({self._column("grad_norm", phase): norm.double()}, phase.repeat)
        self.optimizers[phase.optimizer].step()
        self.optimizers[phase.optimizer].zero_grad(set_to_none=True)

    def _rest_below_head(self) -> None:
        """The statistics of norms below the head stay as they are, too."""
        below = set(self.below_head)
        for module in self.bare.modules():
            own = list(module.parameters(recurse=False))
            if own and below.issuperset(own):
                module.eval()

    def _enable_gradients(self, phase: Phase) -> list[nn.Parameter]:
        """The parameters that this phase updates. With several phases, no gradient is computed for the others."""
        if len(self.phases) == 1:
            return list(self.learning.values())
        for name, parameter in self.learning.items():
            parameter.requires_grad_(name.startswith(phase.parameters))
        return [parameter for parameter in self.learning.values() if parameter.requires_grad]

    def _accumulate(self, phase: Phase, parts: list[Any]) -> list[Tensor]:
        """Add up the gradients of the micro-batches; returns the loss of each."""
        losses = []
        for number, batch in enumerate(parts, 1):
            sync = (
                self.fabric.no_backward_sync(self.model, enabled=number < len(parts)) if self.hooked else nullcontext()
            )
            with sync:
                with self.fabric.autocast():
                    loss, metrics = phase.loss(self.model, batch, self.state.step)
                self.fabric.backward(loss / len(parts))
            losses.append(loss.detach())
            found = {self._column("loss", phase): losses[-1], **metrics}
            self._add({key: value.double() for key, value in found.items()}, len(parts) * phase.repeat)
        if not self.hooked and self.fabric.world_size > 1:
            for parameter in self.learning.values():
                if parameter.grad is not None:
                    parameter.grad.copy_(self.fabric.all_reduce(parameter.grad, reduce_op="mean"))  # type: ignore[arg-type]
        return losses

    def _add(self, metrics: Mapping[str, Tensor], count: int) -> None:
        """Add metrics, of which `count` make up a step, to those of this step."""
        for key, value in metrics.items():
            self.of_step[key] = self.of_step[key] + value / count if key in self.of_step else value / count

    def _column(self, metric: str, phase: Phase) -> str:
        """The name of a metric that every phase has: the first phase's is the step's own."""
        return metric if phase is self.phases[0] else f"{phase.name}_{metric}"

    @property
    def _spent(self) -> float:
        """Seconds of the time allowed: those that have passed, and those that the evaluation at the end will take."""
        return self.state.seconds + self._evaluation

    def _mean_loss(self) -> float:
        now = (phase for phase in self.phases if phase.lasts(self.state.step - 1))
        sums = [self.sums[column] for phase in now if (column := self._column("loss", phase)) in self.sums]
        return float(sums[0]) / self.state.counted if sums else math.nan

    def _seed(self, step: int) -> None:
        """Dropout and its kin become a function of the step."""
        seed = (self.settings.seed << 32) + (self.fabric.global_rank << 48) + step
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also ask every other backend, each step
        if self.fabric.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _diverged(self, norm: float, losses: list[Tensor], parts: list[Any]) -> None:
        """Stop before the bad numbers reach the weights; what came before is saved."""
        number, value, what = len(parts) - 1, norm, "gradient"
        for place, loss in enumerate(losses):
            if not math.isfinite(float(loss)):
                number, value, what = place, float(loss), "loss"
                break
        sound = all(bool(t.isfinite().all()) for t in self.bare.state_dict().values())  # a norm's statistics may not be
        if self.fabric.is_global_zero and self.state.step and sound:
            self._write_checkpoint()
        saved = self.checkpoints.newest_first()
        kept = f"the last good state is saved in {saved[0]}" if saved else "nothing was learned before it"
        raise DivergedError(
            f"the {what} became {value} at step {self.state.step + 1} (epoch "
            f"{self.state.step / self.steps_per_epoch:.2f}), in the batch of "
            f"{self.feed.name_records(parts[number])}; {kept}. Try a smaller --set optimizer.lr, or --set clip_norm=1"
        )

    def _log_training(self, log: Log | None) -> None:
        if not self.state.counted:
            return
        means = {key: float(total) / self.state.counted for key, total in sorted(self.sums.items())}
        if self.fabric.world_size > 1:
            gathered = self.fabric.all_reduce(torch.tensor(list(means.values()), dtype=torch.float64), reduce_op="mean")
            means = dict(zip(means, gathered.tolist(), strict=True))  # type: ignore[union-attr]
        self.sums, self.state.counted = {}, 0
        if log:
            log.line({"split": "train", **self._position(), **means})

    def _position(self) -> dict[str, Any]:
        epoch = self.state.step / self.steps_per_epoch
        return {"step": self.state.step, "epoch": round(epoch, 4), "seconds": round(self.state.seconds, 2)}

    def _validate(self, log: Log | None, progress: Progress) -> None:
        """Evaluate, and keep the weights if none were better; of equals the later count."""
        model = self.evaluated
        model.eval()
        with torch.compiler.set_stance("force_eager"):  # each new batch shape would be compiled again
            metrics = self.validation = self.job.evaluate(model)
        score = self.job.metric.score(metrics[self.job.metric.name])
        if math.isfinite(score) and score >= self.state.best_score and not not_finite(self.evaluated):
            self.state.stale_epochs = 0 if score > self.state.best_score else self.state.stale_epochs + 1
            self.state.best_score, self.state.best_step = score, self.state.step
            if self.fabric.is_global_zero:
                self._write_best()
        else:
            self.state.stale_epochs += 1
        if self.settings.patience and self.state.stale_epochs >= self.settings.patience:
            self.state.stopped = f"no better validation in {self.settings.patience} epochs"
        if log:
            log.line({"split": "validation", **self._position(), **metrics})
        progress.evaluated(self._position()["epoch"], metrics)

    def _call_back(self, method: str, metrics: Mapping[str, Any]) -> None:
        """Tell a person's own code, which may end the training. The first process asks, all obey."""
        if not self.callbacks:
            return
        why = ""
        if self.fabric.is_global_zero:
            values = {key: float(value) for key, value in metrics.items()}
            where = self._position()
            why = call(self.callbacks, method, Moment(steps=self.steps, metrics=values, **where))
        why = self.fabric.broadcast(why) if self.fabric.world_size > 1 else why
        self.state.stopped = self.state.stopped or why

    def _write_best(self) -> None:
        best = Checkpoints(self.run / "best", self.checkpoints.warn)
        best.save(self.state.step, {"model": self.evaluated.state_dict()}, {"score": self.state.best_score})
        self.job.write_model(self.evaluated, self.run)

    def best_weights(self) -> dict[str, Tensor]:
        """The weights of the best validation. DivergedError where no validation gave a number."""
        found = Checkpoints(self.run / "best", self.checkpoints.warn).load_newest()
        if found is None:
            raise DivergedError(
                f"no validation gave a number for the {self.job.metric.name.replace('_', ' ')}: no model can be kept; "
                f"try a smaller --set optimizer.lr, or --set clip_norm=1, with another --out"
            )
        return new_tensors(found[0])["model"]

    def _save(self, log: Log | None) -> None:
        if log and self.fabric.is_global_zero:
            log.flush()  # first the lines, then the checkpoint that says they are there
            self._write_checkpoint()
        self.fabric.barrier()

    def _write_checkpoint(self) -> None:
        used = self._in_use(self.state.step)
        groups = {"model": self.bare.state_dict(), "optimizer": optimizer_tensors(self.bare, used)}
        if self.average is not None:
            groups["average"] = self.average.state_dict()
        if feed := dict(self.feed.state()):
            groups["feed"] = feed
        sums = {key: float(value) for key, value in self.sums.items()}
        self.state.sums = {key: value for key, value in sums.items() if math.isfinite(value)}  # JSON has no others
        self.checkpoints.save(self.state.step, groups, self.state.facts())

    def keep_start(self) -> None:
        """A checkpoint of the weights that nothing has been learned by, where they cannot be made again."""
        if self.fabric.is_global_zero and not self.checkpoints.newest_first():
            self._write_checkpoint()

    def _restore(self) -> None:
        found = self.checkpoints.load_newest()
        if found is None:
            return
        groups, facts = new_tensors(found[0]), found[1]
        self.state = State.read(facts, self.checkpoints.folder)
        try:
            self.bare.load_state_dict(groups["model"])
            load_optimizer_tensors(self.bare, self._in_use(self.state.step), groups["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(groups["average"])
            self.feed.load(groups.get("feed", {}))
        except (RuntimeError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise OrchardError(f"the checkpoints in {self.checkpoints.folder} are of another model: {first}") from None
        if self.run.extended:  # what ended it before was a limit that is another one now
            self.state.stopped, self.state.stale_epochs = "", 0
        self.sums = {key: torch.tensor(value, dtype=torch.float64) for key, value in self.state.sums.items()}

    def _decide(self, saved_at: float) -> tuple[bool, bool, int]:
        """Is the time over, is a checkpoint due, and which signal asks us to stop, if any?

        Clocks and signals differ between processes, decisions must not: the first decides, at every line of the log.
        """
        settings, step = self.settings, self.state.step
        if self.fabric.world_size > 1 and step % settings.log_every:
            return False, False, 0
        time_over = settings.max_minutes is not None and self._spent >= settings.max_minutes * 60
        due = time.monotonic() - saved_at >= settings.checkpoint_minutes * 60
        if settings.checkpoint_steps and step % settings.checkpoint_steps == 0:
            due = True
        mine = (time_over, due, self._stop_signal)
        return self.fabric.broadcast(mine) if self.fabric.world_size > 1 else mine

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first signal (Ctrl-C, SIGTERM, or SIGHUP when a terminal closes) ends the training after the step it is
        in; a second Ctrl-C at once. What is ignored already (`nohup`) stays ignored."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stop_signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._stop_signal = number

        heard = [one for one in STOPPING if signal.getsignal(one) is not signal.SIG_IGN]
        try:
            before = {number: signal.signal(number, ask) for number in heard}
        except ValueError:  # not the main thread: signals are its business
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def steps_per_epoch(feed: Feed, phases: tuple[Phase, ...]) -> int:
    """Steps in which a pass over the data is made, as the training begins: phases with fresh batches take several."""
    per_step = 1 + sum((phase.repeat - 1) / phase.every for phase in phases if phase.fresh_batch and phase.lasts(0))
    return max(round(feed.batches_per_epoch / per_step), 1)


def _prefixes(phases: Sequence[Phase], optimizer: str) -> tuple[str, ...]:
    """The prefixes of all parameters that an optimizer's phases update."""
    return tuple(prefix for phase in phases if phase.optimizer == optimizer for prefix in phase.parameters)


def _span(phases: Sequence[Phase], optimizer: str) -> tuple[int, int | None]:
    """From the first step of an optimizer's phases to the end of their last; None is the end of the training."""
    own = [phase for phase in phases if phase.optimizer == optimizer]
    ends = [phase.ends for phase in own if phase.ends is not None]
    return min(phase.begins for phase in own), max(ends) if len(ends) == len(own) else None
