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
from typing import Any

import torch
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.training.callbacks import ON_EPOCH, ON_STEP, Moment, call
from orchard.training.checkpoint import Checkpoints
from orchard.training.feed import Feed
from orchard.training.loggers import Loggers
from orchard.training.optim import load_optimizer_tensors, optimizer_tensors
from orchard.training.phases import Phase, batches_before
from orchard.training.progress import Progress
from orchard.training.renamed import new_tensors
from orchard.training.run import Log, RunFolder
from orchard.training.settings import flatten
from orchard.training.signals import StopSignal
from orchard.training.state import DivergedError, Interrupted, State
from orchard.training.step import NotFinite, Stepper
from orchard.training.trainable import Trainable
from orchard.weights.portable import not_finite


class Trainer:
    """Fits a job's model on its feed, and selects the weights with the best validation."""

    def __init__(self, job: Trainable, run: RunFolder, warn: Callable[[str], None], callbacks: Sequence[Any] = ()):
        settings, fabric, phases = job.settings, job.fabric, tuple(job.phases)
        self.job, self.run, self.settings, self.fabric, self.phases = job, run, settings, fabric, phases
        self.callbacks = callbacks
        self.feed = job.feed()
        self.steps_per_epoch = steps_per_epoch(self.feed, phases)
        self.steps = math.ceil(settings.epochs * self.steps_per_epoch)
        if settings.max_steps:
            self.steps = min(self.steps, settings.max_steps)
        self.stepper = Stepper(job, self.steps, self.steps_per_epoch)
        self.checkpoints = Checkpoints(run / "checkpoints", warn)
        self.state = State()
        self.sums: dict[str, Tensor] = {}  # of the log line that is being gathered; on the device
        self.signal = StopSignal()
        self.validation: Mapping[str, float] = {}  # the metrics of the latest evaluation
        self._evaluation = 0.0  # seconds that it took
        self._restore()

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the average where there is one."""
        return self.stepper.evaluated

    def fit(self, progress: Progress) -> State:
        """Train to the end, and leave the best weights in the folder `best`."""
        log = self._open_log() if self.fabric.is_global_zero else None
        began = time.monotonic() - self.state.seconds
        saved_at = time.monotonic()
        progress.start(self.steps, self.state.step)
        batches = self.feed.batches(batches_before(self.phases, self.state.step))
        try:
            with self.signal.heard():
                while self.state.step < self.steps and not self.state.stopped:
                    self.step(batches)
                    self.state.seconds = time.monotonic() - began
                    step, per_epoch = self.state.step, self.steps_per_epoch
                    progress.advance(step, self._mean_loss)
                    self._call_back(ON_STEP, self.stepper.metrics)
                    time_over, checkpoint_due, stop = self._decide(saved_at)
                    if time_over and step < self.steps:
                        self.state.stopped = f"the time allowed was over after {step} of {self.steps} steps"
                    last = step == self.steps or bool(self.state.stopped)
                    if step % self.settings.log_every == 0 or last or self.stepper.borders(step):
                        self._log_training(log)
                    due = step % (self.settings.evaluate_steps or per_epoch) == 0
                    if due and step <= self.phases[0].begins and not last:
                        found = {key: float(value) for key, value in self.stepper.metrics.items()}
                        progress.learned(self._position()["epoch"], found)
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

    def step(self, batches: Iterator[list[Any]]) -> None:
        """One more step, on the next of the global batches."""
        spent = self._spent / (self.settings.max_minutes * 60) if self.settings.max_minutes else 0.0
        try:
            metrics = self.stepper.run(self.state.step, batches, spent)
        except NotFinite as error:
            raise self._diverged(error) from None
        for key, value in metrics.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value
        self.state.step += 1
        self.state.counted += 1

    @property
    def _spent(self) -> float:
        """Seconds of the time allowed: those that have passed, and those that the evaluation at the end will take."""
        return self.state.seconds + self._evaluation

    def _mean_loss(self) -> float:
        now = (phase for phase in self.phases if phase.lasts(self.state.step - 1))
        sums = [self.sums[column] for phase in now if (column := self.stepper.column("loss", phase)) in self.sums]
        return float(sums[0]) / self.state.counted if sums else math.nan

    def _diverged(self, found: NotFinite) -> DivergedError:
        """The bad numbers have not reached the weights; what came before is saved, unless half a step came after it."""
        tensors = self.stepper.bare.state_dict().values()  # a norm's statistics may have seen them
        sound = all(bool(tensor.isfinite().all()) for tensor in tensors)
        if self.fabric.is_global_zero and self.state.step and sound and not found.updated:
            self._write_checkpoint()
        saved = self.checkpoints.newest_first()
        kept = f"the last good state is saved in {saved[0]}" if saved else "no state was saved before it"
        return DivergedError(
            f"the {found.what} became {found.value} at step {self.state.step + 1} (epoch "
            f"{self.state.step / self.steps_per_epoch:.2f}), in the batch of "
            f"{self.feed.name_records(found.batch)}; {kept}. Try a smaller --set optimizer.lr, or --set clip_norm=1"
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
        stepper = self.stepper
        used = stepper.in_use(self.state.step)
        groups = {"model": stepper.bare.state_dict(), "optimizer": optimizer_tensors(stepper.bare, used)}
        if stepper.average is not None:
            groups["average"] = stepper.average.state_dict()
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
        groups, facts, stepper = new_tensors(found[0]), found[1], self.stepper
        self.state = State.read(facts, self.checkpoints.folder)
        try:
            stepper.bare.load_state_dict(groups["model"])
            load_optimizer_tensors(stepper.bare, stepper.in_use(self.state.step), groups["optimizer"])
            if stepper.average is not None:
                stepper.average.load_state_dict(groups["average"])
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
        mine = (time_over, due, self.signal.number)
        return self.fabric.broadcast(mine) if self.fabric.world_size > 1 else mine


def steps_per_epoch(feed: Feed, phases: tuple[Phase, ...]) -> int:
    """Steps in which a pass over the data is made, as the training begins: phases with fresh batches take several."""
    per_step = 1 + sum((phase.repeat - 1) / phase.every for phase in phases if phase.fresh_batch and phase.lasts(0))
    return max(round(feed.batches_per_epoch / per_step), 1)
