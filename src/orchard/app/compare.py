"""`compare`: several models under one budget, each trained with several seeds, then measured turn by turn.

Every training is a run folder of its own, so that a comparison that was stopped goes on where it was, and one more
contestant or seed costs only its own time.
"""

from __future__ import annotations

import json
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from orchard.app.seed_curves import seed_curves
from orchard.app.train import resolve_training, train
from orchard.data.kinds import data_name, folder_name, kind_named
from orchard.errors import OrchardError, UsageError
from orchard.files import disk_error, json_text, read_as, write_json, write_table
from orchard.given import Given
from orchard.inference.hardware import hardware
from orchard.inference.loading import Loaded, load
from orchard.models import landmark_of
from orchard.models.foreign import is_foreign
from orchard.report import charts
from orchard.report.charts import Spot, band_chart, percent, spot_chart, write_page
from orchard.tasks.base import Job
from orchard.tasks.record import Task
from orchard.tasks.registry import task_learned, task_named
from orchard.terminal import note
from orchard.training.loop import steps_per_epoch
from orchard.training.metric import Metric
from orchard.training.state import Interrupted

TRAINING_PASSES = 3  # a step costs one pass forward and two backward, as the field counts
ROUNDS = 30  # in which every contestant has its turn
SECONDS = 20.0  # after which no further round is begun, three have been made
THROUGHPUT_BATCH = 64
TABLE = "compare.json"  # what a later call adds to
MEASURED = (  # beside the metric, which has its own name
    "std", "seeds", "parameters", "macs", "latency_s", "pictures_per_second", "memory_bytes", "training_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """What each training may spend: passes over the data, minutes, or multiply-adds of training."""

    kind: Literal["epochs", "minutes", "macs"]
    amount: float

    def settings(self, model: str, source: str | Given, others: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a training that spend it, beside the `others` (dotted keys)."""
        if self.kind == "epochs":
            return {"epochs": self.amount}
        if self.kind == "minutes":
            return {"max_minutes": self.amount, "epochs": 100_000}  # the time is over long before
        resolved, task = resolve_training(model, source, others)
        job: Job = task.load(str(task.job))(resolved, torch.device("cpu"))
        per_step = TRAINING_PASSES * resolved.settings.batch_size * job.cost(job.model)["macs"]
        steps = int(self.amount // per_step)
        if steps == 0:
            raise UsageError(f"{self.amount:g} multiply-adds are less than one step of {per_step:.3g}; give more")
        return {"max_steps": steps, "epochs": steps / steps_per_epoch(job.feed(), job.phases) + 1}

    def words(self) -> str:
        unit = {"epochs": "epochs", "minutes": "minutes", "macs": "multiply-adds"}[self.kind]
        return f"{self.amount:g} {unit} of training"


def compare(
    models: Sequence[str],
    source: Any,
    out: Path | str,
    *,
    budget: Budget,
    seeds: int = 1,
    settings: Mapping[str, Any] | None = None,
    training: Callable[..., dict[str, Any]] = train,
) -> dict[str, Any]:
    """Train every model (variants or timm:NAME) on `source` under the same budget, measure and write the comparison.

    `source` is a name, a path or a Python object, as `train` takes it.

    Writes compare.csv, compare.json and compare.html into `out` beside the run folders, and returns the same as one
    table. Models that were compared there before stay in it. A model that fails has its reason under "error"; the
    others are not disturbed. Raises UsageError, before anything is written, for an unknown variant or setting, a name
    given twice, less than one seed, or an `out` with a comparison under other terms.
    """
    if len(set(models)) < len(models):
        raise UsageError("a model is named twice; name each contestant once")
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least one is needed")
    tasks = {task_learned(model, source).name for model in models}
    if len(tasks) > 1:
        raise UsageError(f"models for {' and '.join(sorted(tasks))} cannot be compared; name models for one task")
    task = task_named(tasks.pop())
    place, out = kind_named(task.data).take(source), Path(out)
    source = place.source if isinstance(place, Given) else place
    for model in models:
        resolve_training(model, place, settings or {})
    terms = {
        "task": task.name, "data": source, "budget": {"kind": budget.kind, "amount": budget.amount},
        "settings": dict(settings or {}),
    }  # fmt: skip
    before = _earlier(out, terms)
    rows = [row for row in before if row["error"] and row["model"] not in models]  # are not tried again unasked
    models = [*(row["model"] for row in before if not row["error"] and row["model"] not in models), *models]
    rows += [_train_all(task, model, place, out, budget, seeds, settings or {}, training) for model in models]
    names = {row.pop("metric") for row in rows} - {None}  # one, as all have learned from the same data
    metric = task.metric_named(names.pop()) if names else task.metric
    rows = [{metric.name if key == "value" else key: value for key, value in row.items()} for row in rows]
    _measure([row for row in rows if not row["error"]])
    result = {
        **terms,
        "name": data_name(source),
        "seeds": seeds,
        "metric": asdict(metric),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "hardware": hardware(),
        "out": str(out),
        "contestants": rows,
    }
    out.mkdir(parents=True, exist_ok=True)  # every contestant may have failed before it had a folder
    _write_csv(out / "compare.csv", rows, metric)
    _write_json(out / TABLE, result)
    _write_page(out / "compare.html", result, budget)
    return result


class _Contestant(BaseModel):
    model: str
    error: str | None


class _Comparison(BaseModel):
    """compare.json, as far as one more call needs it: what was measured is measured again."""

    task: str
    data: str
    budget: dict[str, Any]
    settings: dict[str, Any]
    contestants: list[_Contestant]


def _empty_row(model: str, error: str | None = None) -> dict[str, Any]:
    """A contestant of which nothing is known; `metric` is the name of what `value` is of."""
    return {"model": model, "value": None, **dict.fromkeys(MEASURED), "error": error, "runs": [], "metric": None}


def _earlier(out: Path, terms: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The contestants of the comparison that `out` holds; UsageError where it was under other terms."""
    if not (out / TABLE).exists():
        return []
    found = read_as(out / TABLE, _Comparison)
    for key, value in terms.items():
        if (before := getattr(found, key)) != json.loads(json_text(value)):
            raise UsageError(
                f"{out} holds a comparison with {key} {before}, not {value}; name another folder with --out"
            )
    return [_empty_row(row.model, row.error) for row in found.contestants]


def _write_json(path: Path, result: Mapping[str, Any]) -> None:
    try:
        write_json(path, result)
    except OSError as error:
        raise disk_error(error, path, "make room and run the same command again") from None


def _train_all(
    task: Task,
    model: str,
    source: str | Given,
    out: Path,
    budget: Budget,
    seeds: int,
    settings: Mapping[str, Any],
    training: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    """One contestant with all its seeds, as a row whose measured columns are still empty."""
    row = _empty_row(model)
    try:
        given = {**settings, **budget.settings(model, source, settings)}
        first = int(given.pop("seed", 0))
        for seed in range(first, first + seeds):
            name = folder_name(model, f"{budget.kind}{budget.amount:g}", f"seed{seed}")
            note(f"{model}, seed {seed}, {budget.words()}")
            metrics = training(model, source, out / name, **given, seed=seed)
            report_split = "test" if "test" in metrics else "validation"
            metric = metrics.get("metric", task.metric.name)
            value = metrics[report_split].get(metric)
            if value is None:
                raise OrchardError(f"{out / name / 'metrics.json'} has no number for the {report_split} {metric}")
            found = {metric: value, "split": report_split, "seconds": metrics["seconds"]}
            row["runs"].append({"seed": seed, "folder": name, **found})
    except Interrupted:
        raise
    except Exception as error:  # whatever is wrong with one contestant, the others have a right to their turn
        lines = str(error).strip().splitlines() or [""]
        kind = "" if isinstance(error, OrchardError) else f"{type(error).__name__}: "
        row["error"] = kind + lines[0].removeprefix(f"{model}: ")
        note(f"error: {model}: {row['error']}")
        return row
    values = [run[metric] for run in row["runs"]]
    return row | {
        "metric": metric,
        "value": statistics.mean(values),
        "std": statistics.stdev(values) if seeds > 1 else None,
        "seeds": seeds,
        "parameters": metrics["parameters"],
        "macs": metrics["macs"],
        "training_seconds": statistics.mean(run["seconds"] for run in row["runs"]),
        "first_run": str(out / row["runs"][0]["folder"]),
    }


def _measure(rows: Sequence[dict[str, Any]]) -> None:
    """Fill in latency of one picture, throughput and memory at a batch of 64, as the models are, in float32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = {row["model"]: load(row.pop("first_run")) for row in rows}
    calls: dict[int, dict[str, Callable[[], Any]]] = {1: {}, THROUGHPUT_BATCH: {}}
    for row in rows:
        loaded = models[row["model"]]
        network = loaded.model.to(device).eval()
        for batch in calls:
            inputs = _inputs(loaded, batch, device)
            calls[batch][row["model"]] = partial(network, **inputs)
        row["memory_bytes"] = peak_memory(network, _inputs(loaded, THROUGHPUT_BATCH, device))
    singles, batches = turn_by_turn(calls[1]), turn_by_turn(calls[THROUGHPUT_BATCH])
    for row in rows:
        row["latency_s"] = singles[row["model"]]
        row["pictures_per_second"] = THROUGHPUT_BATCH / batches[row["model"]]


def _inputs(loaded: Loaded, batch: int, device: torch.device) -> dict[str, Tensor]:
    """Arguments of a model's `forward`, at random."""
    if is_foreign(loaded.name):
        return {"images": torch.randn(batch, loaded.pictures.channels, *loaded.pictures.size, device=device)}
    example = landmark_of(loaded.name).example(loaded.model.config, batch, None)
    return {name: tensor.to(device) for name, tensor in example.items()}


@torch.inference_mode()
def turn_by_turn(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each call. All have their turn in every round, so that a busy machine is busy for all."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
        call()
    began = time.perf_counter()
    for number in range(ROUNDS):
        if number >= 3 and time.perf_counter() - began > SECONDS:
            break
        for name, call in calls.items():
            _wait()
            start = time.perf_counter()
            call()
            _wait()
            took[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in took.items()}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are alive while it is on, and the most there were at once."""

    def __init__(self, before: Sequence[Tensor]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.known = WeakIdKeyDictionary()
        for tensor in before:
            self.add(tensor)

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.known:
            return  # a view, or worked in place
        self.known[storage] = None
        size = storage.nbytes()
        weakref.finalize(storage, self.take, size)
        self.now += size
        self.most = max(self.most, self.now)

    def take(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result


def peak_memory(model: nn.Module, inputs: Mapping[str, Tensor]) -> int:
    """The most bytes of weights, inputs and intermediate results alive at once in a forward pass."""
    with torch.no_grad(), _Alive([*model.state_dict().values(), *inputs.values()]) as alive:
        model(**inputs)
    return alive.most


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], metric: Metric) -> None:
    columns = ("model", metric.name, *MEASURED, "error")
    table = [["" if row[name] is None else row[name] for name in columns] for row in rows]
    write_table(path, [columns, *table])


def _write_page(path: Path, result: Mapping[str, Any], budget: Budget) -> None:
    metric = Metric(**result["metric"])
    rows = in_order(result)
    spots = [
        Spot(row["model"], row["macs"], row[metric.name], min(values), max(values))
        for row in rows
        if not row["error"] and (values := [run[metric.name] for run in row["runs"]])
    ]
    name = metric.name.replace("_", " ")
    chart = spot_chart(
        f"{name.capitalize()} against cost", spots, x_label="multiply-adds per sample", y_label=name,
        percent=metric.percent,
    )  # fmt: skip
    curves = band_chart(
        f"{name.capitalize()} while learning", seed_curves(rows, path.parent, metric.name), x_label="epochs",
        y_label=name, percent=metric.percent,
    )  # fmt: skip
    write_page(
        path,
        Path(charts.__file__).with_name("compare.html.jinja"),
        result=result,
        rows=rows,
        chart=chart,
        curves=curves,
        words=budget.words(),
        batch=THROUGHPUT_BATCH,
        metric=metric.name.replace("_", " "),
        best="highest" if metric.larger_is_better else "lowest",
        text=partial(metric_text, metric),
    )


def in_order(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The contestants, best first; those that failed come last."""
    metric = Metric(**result["metric"])
    return sorted(
        result["contestants"], key=lambda row: (row[metric.name] is None, -metric.score(row[metric.name] or 0.0))
    )  # fmt: skip


def metric_text(metric: Metric, value: float) -> str:
    """A value of the metric as people read it."""
    return percent(value) if metric.percent else f"{value:.4g}"
