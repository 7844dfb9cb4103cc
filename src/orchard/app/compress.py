"""`compress`: a trained model made smaller, and what that costs, in one table.

What is wrong with the call (a method, a setting or a path that is not there) is said before torch is imported.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from orchard.cards import Recipe
from orchard.compression.record import Method
from orchard.compression.registry import method_named
from orchard.data.kinds import data_name, folder_name, kind_named
from orchard.errors import UsageError, unknown
from orchard.files import read_as
from orchard.tasks.record import Task
from orchard.tasks.registry import task_named, task_names
from orchard.training.run_files import RunSettings
from orchard.training.settings import Resolved, TrainSettings, explain, flatten, known_keys, nest, resolve
from orchard.weights.folders import ModelFolder, require_model

if TYPE_CHECKING:
    from orchard.compression.subject import Compressed, Subject
    from orchard.inference.loading import Loaded
    from orchard.training.run import RunFolder

# Settings of the run's training that its retraining does not take over: where it began, how long it went on, what the
# model's own folder says, and what belongs to the machine.
LEFT = {
    "model", "start_from", "epochs", "max_steps", "max_minutes", "patience", "evaluate_steps", "head_epochs",
    "freeze_trunk", "image_size", "ema", "threads", "devices", "nodes", "compile", "loggers", "log_every",
}  # fmt: skip
LEFT_GROUPS = ("architecture.", "preprocessing.", "distillation.")
RETRAINING = {"schedule.name": "cosine", "schedule.warmup_epochs": 0.0, "loggers": ()}
RESULT = "compress.json"


def compress(
    run: Path | str, method: str, data: Path | str | None = None, out: Path | str | None = None, **settings: Any
) -> dict[str, Any]:
    """Make a trained model smaller: `compress("runs/lenet5-digits", "prune", macs=0.5)`.

    The result is a run folder of its own, whose model predicts, is evaluated and exported as any other. A folder with
    an unfinished run of the same call is resumed; a finished one is returned as it is. The source is only read.

    Args:
        run: a run folder or a model's folder.
        method: the name of the method; `orchard compress --help` lists them.
        data: what is learned from while retraining, and judged by; default: the data of the run.
        out: the run folder; default: runs/MODEL-DATA-METHOD.
        settings: those of the method, and those of the training (docs/settings.md), nested or with dotted keys. What
            they leave open is as the run was trained.

    Returns the table as compress.json has it, and the folder under "run". Raises UsageError for a wrong call,
    OrchardError for data that do not fit the model and for a training that fails.
    """
    chosen, found = method_named(method), require_model(Path(run))
    task = task_named(found.task)
    if task.compress is None:
        able = ", ".join(name for name in task_names() if task_named(name).compress)
        raise UsageError(f"{run} is for {task.name}, whose models cannot be compressed yet; it is for {able}")
    own, resolved = resolve_compression(Path(run), found, task, chosen, None if data is None else str(data), settings)
    source = resolved.settings.data.source
    kind_named(task.data).require(source)
    from orchard.tasks.base import say
    from orchard.training.run import RunFolder, free_folder

    requested = {
        **resolved.settings.model_dump(mode="json"),
        "compress": {"method": method, "source": _digest(found.folder), **own.model_dump(mode="json")},
    }
    base = Path("runs") / folder_name(found.model, data_name(source), method)
    folder = RunFolder(Path(out) if out else free_folder(base, requested))
    folder.open(requested)
    try:
        if folder.extended:  # its stages began with fewer
            raise UsageError(f"{folder.path} holds a compression with fewer epochs; name another folder with --out")
        if folder.finished:
            say(f"{folder.path} is finished already")
            return {"run": str(folder.path), **read_result(folder.path)}
        return _compress(Path(run), chosen, task, own, resolved, requested, folder)
    finally:
        folder.close()


class Result(BaseModel, extra="allow"):
    """compress.json."""

    model: str
    method: str
    data: str
    split: str
    before: dict[str, Any]
    after: dict[str, Any]


def read_result(folder: Path) -> dict[str, Any]:
    """The table of a finished run; OrchardError where it is not of its form."""
    return read_as(folder / RESULT, Result).model_dump()


def resolve_compression(
    run: Path, found: ModelFolder, task: Task, method: Method, data: str | None, settings: Mapping[str, Any]
) -> tuple[BaseModel, Resolved]:
    """The method's own settings, and those of its retraining with the origin of each.

    Raises UsageError for a setting that neither has, for a wrong value, and where no data are named or known.
    """
    kind: type[TrainSettings] = task.load(task.settings)
    own: type[BaseModel] = method.load(method.settings)
    given = flatten(settings)
    mine = {key: value for key, value in given.items() if key in known_keys(own)}
    try:
        chosen = own.model_validate(nest(mine))
    except ValidationError as error:
        raise UsageError(explain(error, own)) from None
    command = {key: value for key, value in given.items() if key not in mine}
    for key in ("devices", "nodes", "start_from", "model"):
        if key in command:
            raise UsageError(f"setting '{key}' does not go with compress; leave it out")
    known = (*known_keys(own), *known_keys(kind))
    for key in command:
        if key not in known and not key.startswith("architecture."):
            raise unknown("setting", key, known)
    before = _settings_of(run, found, kind)
    if data is not None:
        before = {key: value for key, value in before.items() if not key.startswith("data.")} | {"data.source": data}
    if "data.source" not in before | command:
        raise UsageError(f"{run} does not say what it was trained on; name the data with --data")
    usual: Any = kind.model_fields["optimizer"].get_default(call_default_factory=True)
    lr = before.get("optimizer.lr", usual.lr) * method.learning_rate
    over = {**RETRAINING, "optimizer.lr": lr, **method.training}
    recipe = Recipe(found.model, "", {**before, **over})
    resolved = resolve({"model": found.model, **command}, recipe, f"as {run} was trained", kind)
    resolved = resolved.choose("start_from", str(found.folder), "command")
    origins = {key: f"method {method.name}" for key in over if key not in command}
    return chosen, replace(resolved, origins={**resolved.origins, **origins})


def _settings_of(run: Path, found: ModelFolder, kind: type[TrainSettings]) -> dict[str, Any]:
    """How the model was trained, as far as retraining takes it over; of an imported one what suits fine-tuning."""
    written = [path for folder in (run, found.folder.parent) if (path := folder / "settings.json").exists()]
    if written:
        table = {key: row.value for key, row in read_as(written[0], RunSettings).rows().items()}
    else:
        table = dict(kind.fine_tuning)
    known = known_keys(kind)
    kept = (key for key in table if key in known and key not in LEFT and not key.startswith(LEFT_GROUPS))
    return {key: table[key] for key in kept}


def _digest(folder: Path) -> str:
    """The model's files, so that another model under the same name is no resumption."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        if path.suffix in (".json", ".safetensors", ".dc"):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _compress(
    source: Path,
    method: Method,
    task: Task,
    own: BaseModel,
    resolved: Resolved,
    requested: Mapping[str, Any],
    run: RunFolder,
) -> dict[str, Any]:
    import torch

    from orchard.app.train import left_out, set_threads, train, write_manifest
    from orchard.compression.subject import STAGES, Subject
    from orchard.inference.loading import load
    from orchard.tasks.base import say, warn
    from orchard.training.run import RunFolder

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load(source)

    def job_of(model: Loaded) -> Any:
        """The task's job (a `CompressJob`, too) for another model on the same data, such as a student."""
        wanted = resolved.choose("model", model.name, "command").choose("start_from", str(model.folder), "command")
        return task.load(str(task.compress))(wanted, device, model)

    def train_other(model: str, stage: str, settings: Mapping[str, Any]) -> RunFolder:
        table = flatten(resolved.settings.model_dump())
        told = {key: table[key] for key, origin in resolved.origins.items() if origin == "command" and key in table}
        told |= {key: value for key, value in table.items() if key.startswith("data.")}
        for key in ("model", "data.source", "start_from"):
            told.pop(key, None)
        out = run / STAGES / stage
        train(model, resolved.settings.data.source, out, **{**told, **settings})
        return RunFolder(out)

    job = job_of(loaded)
    if device.type == "cpu":
        set_threads(job, run)
    job.fabric.launch()
    write_manifest(job, requested, run, None)
    say(f"{loaded.name} on {data_name(resolved.settings.data.source)}: {method.name}; {job.describe()}")
    for warning in left_out(job.manifest()):
        warn(warning)
    subject = Subject(method, loaded, job, run, say, warn, job_of, train_other)
    compressed: Compressed = method.load(method.run)(subject, own)
    return _finish(subject, compressed, own, task)


def _finish(subject: Subject, compressed: Compressed, own: BaseModel, task: Task) -> dict[str, Any]:
    """Write the model, read it again, measure both, report. The report comes last."""
    from orchard.compression.measure import engine_latencies, figures, latencies
    from orchard.compression.report import write_report
    from orchard.compression.subject import STAGES
    from orchard.inference.loading import load
    from orchard.tasks.base import say
    from orchard.weights.folders import read_description
    from orchard.weights.portable import Portable

    loaded, run = subject.loaded, subject.run
    about = replace(Portable(**dict(read_description(loaded.folder))), origin=str(run.path))
    if (run / "model").exists():
        shutil.rmtree(run / "model")  # of a call that was killed while it was finishing
    compressed.write(run / "model", about)
    after = load(run.path)  # from the files: what is measured is what a person gets
    same = after.name == loaded.name and after.preprocess == loaded.preprocess
    job = subject.job if same else subject.job_of(after)
    both = (("before", loaded, subject.job), ("after", after, job))  # the files that `finish` writes for the last stay
    calls = {
        name: (one.model, next(iter(its.inputs(its.report_split, 1))).to(its.fabric.device)) for name, one, its in both
    }
    ways = engine_latencies(calls) if compressed.by_engines else {}
    seconds = {name: min(found.values()) for name, found in ways.items()} or latencies(calls)
    found = {name: its.finish(one.model.to(its.fabric.device).eval(), run) for name, one, its in both}
    split = job.report_split
    sides = {
        name: figures(one.folder, one.model, seconds[name], found[name], split)
        for name, one in (("before", loaded), ("after", after))
    }
    source = data_name(job.settings.data.source)
    table: dict[str, Any] = {
        "model": after.name,
        "method": subject.method.name,
        "task": task.name,
        "data": source,
        "split": split,
        "metric": {"name": task.metric.name, "percent": task.metric.percent},
        "source": str(loaded.folder),
        "ratio": sides["before"]["file_bytes"] / sides["after"]["file_bytes"],
        "speedup": sides["before"]["latency_s"] / sides["after"]["latency_s"],
        **sides,
        "settings": own.model_dump(mode="json"),
        "stages": [dict(row) for row in compressed.stages],
        **({"latency_by_engine": ways} if ways else {}),
        **compressed.facts,
    }
    run.write(RESULT, table)
    per_epoch = subject.steps_per_epoch
    metrics = {
        "model": after.name,
        "task": task.name,
        "data": source,
        "parameters": sides["after"]["parameters"],
        "steps": subject.steps,
        "epochs": round(subject.steps / per_epoch, 4),
        "best_step": subject.steps,
        "stopped": "",
        "seconds": round(subject.seconds, 2),
        **found["after"],
    }
    run.write("metrics.json", metrics)
    shutil.rmtree(run / STAGES, ignore_errors=True)  # all that they were for is in the model
    say(f"report: {write_report(run, table)}")
    return {"run": str(run.path), **table}
