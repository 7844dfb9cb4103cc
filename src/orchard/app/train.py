"""`train`: from settings to a finished run folder.

What is wrong with the call (a model, a setting or a path that is not there) is said before torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.cards import FOREIGN, Recipe, card_of, find_recipe
from orchard.data.kinds import canonical_name, data_name, folder_name, kind_named
from orchard.errors import OrchardError, UsageError
from orchard.given import MODULE, Given, given_name
from orchard.tasks.record import Task
from orchard.tasks.registry import task_learned, task_named, task_names
from orchard.training.callbacks import check_callbacks
from orchard.training.loggers import require_loggers
from orchard.training.settings import SHARED, Objects, Resolved, TrainSettings, flatten, known_keys, resolve

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchard.tasks.base import Job
    from orchard.training.loop import Trainer
    from orchard.training.run import RunFolder
    from orchard.training.state import State


FINE_TUNING = "recipe for fine-tuning"


def pick_recipe(model: str, source: str, wanted: str | None, kind: str | None = None) -> tuple[Recipe | None, str]:
    """The recipe for a model on some data of a kind, and how settings.json shall call it.

    `wanted` names the data set whose recipe is asked for, where it is not the one of `source`.
    """
    if model.startswith(FOREIGN):
        return None, ""
    recipe = find_recipe(model, wanted or canonical_name(source), kind)
    if wanted and (recipe is None or recipe.data != wanted):
        known = ", ".join(r.data for r in card_of(model).recipes if r.model == model) or "none"
        raise UsageError(f"{model} has no recipe for '{wanted}'; it has: {known}")
    return recipe, f"recipe {recipe.model} on {recipe.data}" if recipe else ""


def train(
    model: str | nn.Module,
    data: Any,
    out: Path | str | None = None,
    *,
    recipe: str | None = None,
    task: str | None = None,
    callbacks: Sequence[Any] = (),
    metrics: Mapping[str, Callable[[Tensor, Tensor], float]] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a model on data: `train("vit_nano", "digits", epochs=5, optimizer={"lr": 3e-4})`.

    A run folder with an unfinished run of the same settings and data is resumed; a finished one is returned as it is.

    Args:
        model: the name of a variant, or a module of your own for image classification, which takes images (B, C, H, W)
            and gives logits (B, K). A copy of it is trained, from the weights that it has; `load(RUN, model=module)`
            fills the module with the best ones. `image_size` says how large the images are that it is given.
        data: the name of a set, or a path. For models that learn from images also a Python object (`open_data` says
            which), for language models a list of strings or a frame with a column of text. Nothing of an object is
            stored: to resume, hand the same in again.
        out: the run folder; default: runs/MODEL-DATA.
        recipe: take the recipe of the model's card for the set of this name.
        task: what a model of several tasks learns; default: what suits the data.
        callbacks: objects with `on_step(moment)` or `on_epoch(moment)` (`orchard.Callback`).
        metrics: your own for image classification, by name: functions of logits (N, K) float32 and labels (N,) int64 of
            a split, computed at every evaluation.
        settings: those of the model's task (docs/settings.md), nested or with dotted keys. What they leave open, the
            recipe of the model's card for this data gives, then the defaults.

    Returns the content of the run's metrics.json, and the folder under "run". Raises UsageError for a wrong call,
    OrchardError for data that cannot be learned from and for a training that fails.
    """
    check_callbacks(callbacks)
    resolved, learned = resolve_training(model, data, settings, recipe, metrics, task)
    model, source = resolved.settings.model, resolved.settings.data.source
    if resolved.objects.data is None:
        kind_named(learned.data).require(source)
    from orchard.app.out_of_memory import explained
    from orchard.tasks.base import is_first_process, say
    from orchard.training.run import RunFolder, free_folder

    requested = resolved.settings.model_dump(mode="json")
    base = Path("runs") / folder_name(given_name(model, MODULE) or model, data_name(source))
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
        with explained(resolved.settings, learned):
            return _train(resolved, learned, requested, run, recipe, callbacks)
    finally:
        run.close()


def resolve_training(
    model: str | nn.Module,
    data: Any,
    settings: Mapping[str, Any],
    recipe: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    wanted: str | None = None,
) -> tuple[Resolved, Task]:
    """The settings of a training with the objects beside them, and its task.

    Raises UsageError for a model, data, a recipe or a setting that there is not, OrchardError for an item of an object
    that is not right.
    """
    module = None if isinstance(model, str) else model
    model = model if isinstance(model, str) else _module_name(model, settings)
    if not model.startswith(FOREIGN):
        card_of(model)
    task = task_learned(model, data, wanted)
    if metrics and not task.own_metrics:
        raise UsageError(f"{model} is for {task.name}, which computes no metrics beside its own; leave out metrics=")
    kind: type[TrainSettings] = task.load(task.settings)
    source = data if isinstance(data, str) else kind_named(task.data).take(data)
    given = source if isinstance(source, Given) else None
    source = source.source if isinstance(source, Given) else source
    command = flatten(settings) | {"model": model, "data.source": source}
    found: Recipe | None
    if command.get("start_from") and kind.fine_tuning and recipe is None:
        found, name = Recipe(model, "", dict(kind.fine_tuning)), FINE_TUNING
    else:
        found, name = pick_recipe(model, source, recipe, task.data)
    refuse_foreign(command, task, kind)
    resolved = resolve(command, found, name, kind)
    require_loggers(resolved.settings.loggers)
    if model.startswith(FOREIGN):
        from orchard.models.foreign import check_foreign

        check_foreign(model)
    return replace(resolved, objects=Objects(given, module, metrics)), task


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


def _module_name(module: Any, settings: Mapping[str, Any]) -> str:
    """What settings call a module of one's own. UsageError for what is none."""
    from torch import nn

    from orchard.models.foreign import module_name

    if not isinstance(module, nn.Module):
        raise UsageError(f"a {type(module).__name__} is no model; name one (orchard list), or hand in an nn.Module")
    if settings.get("start_from"):
        raise UsageError(
            "start_from is for models that have a name; a module of your own starts from its weights: "
            "orchard.load(RUN, model=module) fills it"
        )
    return module_name(module)


def refuse_foreign(command: Mapping[str, Any], task: Task, kind: type[TrainSettings]) -> None:
    """UsageError for a setting that other tasks have and this one has not."""
    known = set(known_keys(kind))
    for key in command:
        if key in known or key.partition(".")[0] in ("architecture", *SHARED):
            continue
        others = [name for name in task_names() if key in known_keys((t := task_named(name)).load(t.settings))]
        if others:
            raise UsageError(
                f"setting '{key}' is for {', '.join(others)}; {command['model']} is for {task.name}, which has no such "
                "setting; leave it out"
            )


def _train(
    resolved: Resolved,
    task: Task,
    requested: Mapping[str, Any],
    run: RunFolder,
    recipe: str | None,
    callbacks: Sequence[Any],
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
    job: Job = task.load(str(task.job))(resolved, device)
    set_threads(job, run)
    settings, fabric = job.settings, job.fabric
    fabric.launch()
    if fabric.world_size > 1:  # the folder is where the first process says it is
        path, extended = fabric.broadcast((str(run.path), run.extended))
        run = run if fabric.is_global_zero else RunFolder(Path(path))
        run.extended = extended
    read_through(job.records, job.final_splits, job.settings.data)
    trainer = Trainer(job, run, warn, callbacks)
    if resolved.objects.module is not None:
        trainer.keep_start()
    plan = make_plan(trainer, cut=not task.whole_batch)
    if fabric.is_global_zero:
        write_manifest(job, requested, run, recipe)
        on = f"; {settings.threads} thread{'s' if settings.threads != 1 else ''}" if settings.threads else ""
        name = given_name(settings.model, MODULE) or settings.model
        say(f"{name} on {data_name(settings.data.source)}: {job.describe()}; {plan.words()}{on}")
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


def set_threads(job: Job, run: RunFolder) -> None:
    """On a CPU: as asked for, as the run began (another number gives other bits), or by the work and the load."""
    if job.fabric.device.type != "cpu":
        return
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


def write_manifest(job: Job, requested: Mapping[str, Any], run: RunFolder, recipe: str | None) -> None:
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
        **({} if job.metric == job.task.metric else {"metric": job.metric.name}),
        **job.finish(model, run),
    }
    if job.fabric.is_global_zero:
        run.write("metrics.json", metrics)
        say(f"report: {job.report(model, run)}")
    job.fabric.barrier()
    return {"run": str(run.path), **metrics}
