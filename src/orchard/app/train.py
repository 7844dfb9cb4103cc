"""`train`: from settings to a finished run folder.

What is wrong with the call (a model, a setting or a path that is not there) is said before torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.cards import FOREIGN, Recipe, card_of, find_recipe
from orchard.data.kinds import canonical_name, data_name, folder_name, kind_named
from orchard.errors import OrchardError, UsageError
from orchard.tasks.record import Task
from orchard.tasks.registry import task_named, task_names, task_of
from orchard.training.settings import Resolved, TrainSettings, flatten, known_keys, resolve

if TYPE_CHECKING:
    from orchard.tasks.base import Job
    from orchard.training.loop import State, Trainer
    from orchard.training.run import RunFolder


FINE_TUNING = "recipe for fine-tuning"


def pick_recipe(model: str, source: str, wanted: str | None) -> tuple[Recipe | None, str]:
    """The recipe for a model on some data, and how settings.json shall call it.

    `wanted` names the data set whose recipe is asked for, where it is not the one of `source`.
    """
    if model.startswith(FOREIGN):
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

    `settings` are those of the model's task (docs/settings.md), nested or with dotted keys. What they leave open, the
    recipe of the model's card for this data gives (or the one for the set named by `recipe`), then the defaults. A run
    folder with an unfinished run of the same settings is resumed; a finished one is returned as it is.
    Returns the content of the run's metrics.json, and the folder under "run".
    """
    resolved, task = resolve_training(model, data, settings, recipe)
    kind_named(task.data).require(data)
    from orchard.app.out_of_memory import explained
    from orchard.tasks.base import is_first_process, say
    from orchard.training.run import RunFolder, free_folder

    requested = resolved.settings.model_dump(mode="json")
    base = Path("runs") / folder_name(model, data_name(data))
    run = RunFolder(Path(out) if out else free_folder(base, requested))
    if is_first_process():
        run.open(requested)
    try:
        if run.finished and run.extended:
            say(f"{run.path} was finished and goes on")
            (run / "report.html").unlink()  # it is finished again when this is written anew
        if run.finished:
            say(f"{run.path} is finished already")
            return {"run": str(run.path), **run.metrics().table()}
        resolved = as_begun(resolved, run)
        with explained(resolved.settings, task):
            return _train(resolved, task, requested, run, recipe)
    finally:
        run.close()


def resolve_training(
    model: str, data: str, settings: Mapping[str, Any], recipe: str | None = None
) -> tuple[Resolved, Task]:
    """The settings of a training, and its task. Raises UsageError for a model, recipe or setting that there is not."""
    if not model.startswith(FOREIGN):
        card_of(model)
    task = task_of(model)
    command = flatten(settings) | {"model": model, "data.source": data}
    kind: type[TrainSettings] = task.load(task.settings)
    found: Recipe | None
    if command.get("start_from") and kind.fine_tuning and recipe is None:
        found, name = Recipe(model, "", dict(kind.fine_tuning)), FINE_TUNING
    else:
        found, name = pick_recipe(model, data, recipe)
    refuse_foreign(command, task, kind)
    resolved = resolve(command, found, name, kind)
    if model.startswith(FOREIGN):
        from orchard.models.foreign import check_foreign

        check_foreign(model)
    return resolved, task


def as_begun(resolved: Resolved, run: RunFolder) -> Resolved:
    """What is chosen by the data, as an unfinished run began: mended records may give another choice."""
    from orchard.training.renamed import NOW_CHOSEN

    if not (run / "settings.json").exists():
        return resolved
    now, before = flatten(resolved.settings.model_dump()), run.settings().rows()
    for key in NOW_CHOSEN:
        if key in now and now[key] is None and key in before:
            if type(value := before[key].value) is not int or value < 1:
                raise OrchardError(f"{run / 'settings.json'}: '{key}': expected an integer of at least 1")
            resolved = resolved.choose(key, value, before[key].origin)
    return resolved


def refuse_foreign(command: Mapping[str, Any], task: Task, kind: type[TrainSettings]) -> None:
    """UsageError for a setting that other tasks have and this one has not."""
    known = set(known_keys(kind))
    for key in command:
        if key in known or key.startswith("architecture."):
            continue
        others = [name for name in task_names() if key in known_keys((t := task_named(name)).load(t.settings))]
        if others:
            raise UsageError(
                f"setting '{key}' is for {', '.join(others)}; {command['model']} is for {task.name}, which has no such "
                "setting; leave it out"
            )


def _train(
    resolved: Resolved, task: Task, requested: Mapping[str, Any], run: RunFolder, recipe: str | None
) -> dict[str, Any]:
    import torch

    from orchard.app.records import overlaps
    from orchard.data.reading import read_through
    from orchard.tasks.base import say, warn
    from orchard.training.loop import Trainer
    from orchard.training.plan import make_plan
    from orchard.training.progress import Progress
    from orchard.training.run import RunFolder

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    job: Job = task.load(task.job)(resolved, device)
    if device.type == "cpu":
        _set_threads(job, run)
    settings, fabric = job.settings, job.fabric
    fabric.launch()
    if fabric.world_size > 1:  # the folder is where the first process says it is
        path, extended = fabric.broadcast((str(run.path), run.extended))
        run = run if fabric.is_global_zero else RunFolder(Path(path))
        run.extended = extended
    read_through(job.records, job.final_splits, job.settings.data)
    trainer = Trainer(job, run, warn)
    plan = make_plan(trainer, cut=not task.whole_batch)
    if fabric.is_global_zero:
        _write_manifest(job, requested, run, recipe)
        on = f"; {settings.threads} thread{'s' if settings.threads != 1 else ''}" if settings.threads else ""
        say(f"{settings.model} on {data_name(settings.data.source)}: {job.describe()}; {plan.words()}{on}")
        for warning in (*left_out(job.manifest()), *job.remarks(), *overlaps(job), *plan.warnings()):
            warn(warning)
    progress = Progress(job.per_step, job.unit, ("loss", *job.logged), quiet=not fabric.is_global_zero)
    state = trainer.fit(progress)
    return _finish(job, run, trainer, state, progress.throughput)


def left_out(data: Mapping[str, Any], most: int = 5) -> list[str]:
    """What is wrong with the data, or not learned from, in a few lines; run.json has more of it."""
    found = data.get("problems", [])
    more = [f"and {len(found) - most} more like these (orchard data check lists all)"] if len(found) > most else []
    return [*found[:most], *more]


def _set_threads(job: Job, run: RunFolder) -> None:
    """As asked for, as the run began (another number gives other bits), or by the work and the load."""
    import torch

    from orchard.inference.hardware import choose_threads

    threads, why = job.settings.threads, ""
    if threads is None and (run / "settings.json").exists():
        before = run.settings().threads
        threads, why = before.value, before.origin
    if threads is None:
        threads, why = choose_threads(job.cost(job.model)["macs"])
    if job.settings.threads is None:
        job.resolved = job.resolved.choose("threads", threads, why)
    torch.set_num_threads(threads)


def _write_manifest(job: Job, requested: Mapping[str, Any], run: RunFolder, recipe: str | None) -> None:
    from orchard.app.records import changed_records
    from orchard.data.digests import digests_of, read_digests, write_digests
    from orchard.inference.hardware import hardware
    from orchard.tasks.base import warn
    from orchard.training.run import now, versions

    data, digests = job.manifest(), {name: digests_of(split) for name, split in job.records.items()}
    manifest = {
        "requested": requested,
        "recipe": recipe,
        "model": job.settings.model,
        "seed": job.settings.seed,
        "parameters": sum(p.numel() for p in job.model.parameters()),
        "versions": versions(),
        "hardware": hardware(),
        "data": data,
        "started": now(),
    }
    if (run / "run.json").exists():
        before = run.facts()
        if before.data.fingerprint != data["fingerprint"]:
            warn(changed_records(before.data.model_dump(), job, digests, read_digests(run.path), run.path))
        manifest["started"] = before.started
    run.write("run.json", manifest)
    write_digests(run.path, digests)
    run.write("settings.json", job.resolved.to_json())


def _finish(job: Job, run: RunFolder, trainer: Trainer, state: State, throughput: float) -> dict[str, Any]:
    """The best weights, evaluated, written as a portable model, and reported. The report comes last."""
    from orchard.tasks.base import say
    from orchard.weights.portable import load_exactly

    model = trainer.evaluated
    load_exactly(model, trainer.best_weights(), str(run / "best"))
    model.eval()
    if job.fabric.is_global_zero:
        job.write_model(model, run)  # before it is judged, which may fail
    metrics: dict[str, Any] = {
        "model": job.settings.model,
        "task": job.task.name,
        "data": data_name(job.settings.data.source),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": state.step,
        "epochs": round(state.step / trainer.steps_per_epoch, 4),
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
