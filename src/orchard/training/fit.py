"""`train`: from settings to a finished run folder, and `evaluate`: a finished run on other data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only

from orchard.cards import Recipe, card_of, find_recipe
from orchard.data import canonical_name
from orchard.errors import OrchardError, UsageError
from orchard.inference.hardware import hardware
from orchard.models.foreign import is_foreign
from orchard.training.jobs import prepare
from orchard.training.jobs.base import Job
from orchard.training.loop import State, Trainer
from orchard.training.plan import less_memory, make_plan
from orchard.training.progress import Progress
from orchard.training.run import RunFolder, free_folder, now, read_json, versions
from orchard.training.settings import Resolved, flatten, resolve
from orchard.weights.portable import load_exactly


def first_process() -> bool:
    """Of several that train together, is this the one that speaks and writes?"""
    return getattr(rank_zero_only, "rank", 0) == 0


def say(message: str) -> None:
    """A line for the person who waits, on stderr."""
    if first_process():
        sys.stderr.write(message + "\n")


def warn(message: str) -> None:
    say(f"warning: {message}")


def pick_recipe(model: str, source: str, wanted: str | None) -> tuple[Recipe | None, str]:
    """The recipe for a model on some data, and how settings.json shall call it.

    `wanted` names the data set whose recipe is asked for, where it is not the one of `source`.
    """
    if is_foreign(model):
        return None, ""
    recipe = find_recipe(model, wanted or canonical_name(source))
    if wanted and (recipe is None or recipe.data != wanted):
        known = ", ".join(r.data for r in card_of(model).recipes if r.model == model) or "none"
        raise UsageError(f"{model} has no recipe for '{wanted}'; it has: {known}")
    return recipe, f"recipe {recipe.model} on {recipe.data}" if recipe else ""


def train(
    model: str, data: str, out: Path | str | None = None, *, recipe: str | None = None, **settings: Any
) -> dict[str, Any]:
    """Train a model on data: `train("vit_nano", "digits", epochs=5, optimizer={"lr": 3e-4})`.

    `settings` are fields of TrainSettings, nested or with dotted keys. What they leave open, the recipe of the
    model's card for this data gives (or the one for the set named by `recipe`), then the defaults. A run folder that
    holds an unfinished run of the same settings is taken up where it stopped; a finished one is returned as it is.
    Returns the content of the run's metrics.json, and the folder under "run".
    """
    if not is_foreign(model):
        card_of(model)
    command = flatten(settings) | {"model": model, "data.source": data}
    found, name = pick_recipe(model, data, recipe)
    resolved = resolve(command, found, name)
    requested = resolved.settings.model_dump(mode="json")
    base = Path("runs") / f"{model}-{canonical_name(data)}".replace(":", "-")
    run = RunFolder(Path(out) if out else free_folder(base, requested))
    if first_process():
        run.open(requested)
    try:
        if run.finished:
            say(f"{run.path} is finished already")
            return {"run": str(run.path), **read_json(run / "metrics.json")}
        return _train(resolved, requested, run, recipe)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(resolved) from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise _out_of_memory(resolved) from error
        raise
    finally:
        run.close()


def _out_of_memory(resolved: Resolved) -> OrchardError:
    s = resolved.settings
    return OrchardError(f"out of memory at a batch of {s.batch_size} in {s.accumulate} part(s); try {less_memory(s)}")


def _train(resolved: Resolved, requested: Mapping[str, Any], run: RunFolder, recipe: str | None) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    job = prepare(resolved, device)
    settings, fabric = job.settings, job.fabric
    fabric.launch()
    if fabric.world_size > 1:  # the folder is where the first process says it is
        shared = Path(fabric.broadcast(str(run.path)))
        run = run if fabric.is_global_zero else RunFolder(shared)
    feed = job.feed()
    trainer = Trainer(settings, run, fabric, job.model, job.task, feed, job.evaluate, warn)
    plan = make_plan(settings, trainer.bare, job.task, feed, trainer.steps - trainer.state.step, settings.precision)
    if fabric.is_global_zero:
        _write_facts(job, requested, run, recipe)
        say(f"{settings.model} on {job.facts()['name']}: {job.describe()}; {plan.words()}")
        for warning in plan.warnings(settings):
            warn(warning)
    figures = ("loss", *job.task.logged)
    progress = Progress(job.per_step, job.unit, figures, quiet=not fabric.is_global_zero)
    state = trainer.fit(progress)
    return _finish(job, run, trainer, state, progress.throughput)


def _write_facts(job: Job, requested: Mapping[str, Any], run: RunFolder, recipe: str | None) -> None:
    facts = {
        "requested": requested,
        "recipe": recipe,
        "model": job.settings.model,
        "seed": job.settings.seed,
        "parameters": sum(p.numel() for p in job.model.parameters()),
        "versions": versions(),
        "hardware": hardware(),
        "data": job.facts(),
        "started": now(),
    }
    if (run / "run.json").exists():
        before = read_json(run / "run.json")
        if before["data"]["fingerprint"] != job.facts()["fingerprint"]:
            raise OrchardError(
                f"the data in {job.settings.data.source} has changed since {run.path} was begun; "
                "name another folder with --out"
            )
        facts["started"] = before["started"]
    run.write("run.json", facts)
    run.write("settings.json", job.resolved.to_json())


def _finish(job: Job, run: RunFolder, trainer: Trainer, state: State, throughput: float) -> dict[str, Any]:
    """The best weights, evaluated, written as a portable model, and reported. The report comes last."""
    model = trainer.evaluated
    load_exactly(model, trainer.best_weights(), str(run / "best"))
    model.eval()
    metrics: dict[str, Any] = {
        "model": job.settings.model,
        "task": job.task.name,
        "data": job.facts()["name"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": state.step,
        "epochs": round(state.step / trainer.feed.steps_per_epoch, 4),
        "best_step": state.best_step,
        "stopped": state.stopped,
        "seconds": round(state.seconds, 2),
        f"{job.unit}_per_second": round(throughput, 1),
        **job.finish(model, run),
    }
    if job.fabric.is_global_zero:
        run.write("metrics.json", metrics)
        say(f"report: {job.report(model, run)}")
    job.fabric.barrier()
    return {"run": str(run.path), **metrics}
