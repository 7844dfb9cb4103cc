"""The run folder: everything one training made, in files that can be read without us.

settings.json   every setting, its value and where it came from
run.json        what was asked for, seed, versions, hardware, data fingerprint
records.safetensors  by what each record of the data is known again
log.csv         one line per interval of training and per evaluation (also tensorboard/; wandb/ where it is asked for)
checkpoints/    the newest two, for going on
best/           the weights with the best validation so far
model/          the portable model, of the best so far; evaluation/ the predictions behind the figures
metrics.json    the final figures
report.html     all of it to look at, written last: a run that has it is finished
"""

from __future__ import annotations

import contextlib
import csv
import io
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from orchard.errors import OrchardError, UsageError
from orchard.files import atomic, disk_error, locked, read_as, write_json
from orchard.training.loggers import Loggers
from orchard.training.renamed import NOW_CHOSEN, new_settings
from orchard.training.run_files import RunFacts, RunMetrics, RunSettings
from orchard.training.settings import flatten

LOG_COLUMNS = ("step", "epoch", "split", "loss", "lr", "grad_norm", "seconds")
# None of these changes what is learned.
MAY_DIFFER = {"checkpoint_minutes", "checkpoint_steps", "log_every", "loggers", "data.workers"}
MAY_DIFFER |= {"data.bad_records"}  # what it leaves out is counted, and said or refused
MAY_GROW = {"epochs", "max_steps", "max_minutes", "patience"}  # a run goes on for longer than was asked for at first
LOCK = ".lock"
WRITTEN = (
    "run.json", "settings.json", "records.safetensors", "log.csv", "tensorboard", "checkpoints", "best", "model",
    "evaluation", "metrics.json", "report.html", "wandb", "stages", "compress.json",
)  # fmt: skip
LEFT = re.compile(r"\.lock|\.run\.json\.partial\d*")


class RunFolder:
    """A run on disk. Opening it takes a lock, so that no two processes write the same run.

    `extended` says that more epochs (or steps, minutes, patience) are asked for than the run in it had.
    """

    def __init__(self, path: Path):
        self.path = path
        self.extended = False
        self._opened = contextlib.ExitStack()
        self._locked = False
        self._made: list[Path] = []  # folders around it that were not there, innermost first

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def finished(self) -> bool:
        return (self / "report.html").exists()

    def facts(self) -> RunFacts:
        """What run.json says; OrchardError where it is not of its form."""
        return read_as(self / "run.json", RunFacts)

    def settings(self) -> RunSettings:
        """What settings.json says; OrchardError where it is not of its form."""
        return read_as(self / "settings.json", RunSettings)

    def metrics(self) -> RunMetrics:
        """What metrics.json says; OrchardError where it is not of its form."""
        return read_as(self / "metrics.json", RunMetrics)

    def open(self, requested: Mapping[str, Any]) -> None:
        """Create the folder, or take up the unfinished run in it if it was asked for with the same settings.

        Raises UsageError for a folder of something else or of other settings, OrchardError where it cannot be
        written or another process is at work in it.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise UsageError(f"{self.path} is a file; name a folder for the run")
            if not (self / "run.json").exists() and self.path.exists() and not _unused(self.path):
                raise UsageError(f"{self.path} exists and is no run of ours; name another folder with --out")
            self._made = [folder for folder in self.path.parents if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            links = [name for name in (LOCK, *WRITTEN) if (self / name).is_symlink()]
            if links:
                raise UsageError(f"{self / links[0]} is a link, which is not followed for writing; name another folder")
            busy = f"another process is training in {self.path}; wait for it or name another --out"
            self._opened.enter_context(locked(self / LOCK, busy))
            self._locked = True
        except OSError as error:
            raise disk_error(error, self.path, "name a folder that can be written with --out") from None
        if (self / "run.json").exists():
            self.extended = self._compare(requested)

    def close(self) -> None:
        """Let others in. A folder in which nothing came to be, since the call was wrong, goes away again."""
        if self._locked and _unused(self.path):
            with contextlib.suppress(OSError):  # another process may be about to begin here
                for path in self.path.iterdir():
                    path.unlink()
                for folder in (self.path, *self._made):
                    folder.rmdir()
        self._opened.close()
        self._locked = False

    def _compare(self, requested: Mapping[str, Any]) -> bool:
        """Is more of the same asked for than before? Raises UsageError for other settings."""
        then, now = new_settings(flatten(self.facts().requested)), flatten(requested)
        known = {*then} & {*now}  # version 0.1 kept the settings of other tasks, too
        architecture = {key for key in (*then, *now) if key.startswith(("architecture.", "compress."))}
        then |= {key: None for key, value in NOW_CHOSEN.items() if then.get(key) == value and now.get(key) is None}
        different = [key for key in sorted(known | architecture) if then.get(key) != now.get(key)]
        more = [key for key in different if key in MAY_GROW and _is_more(then[key], now[key])]
        for key in different:
            if key not in MAY_DIFFER and key not in more:
                advice = f"; {key} may only grow" if key in MAY_GROW else ""
                raise UsageError(
                    f"{self.path} holds a run with {key}={then.get(key)}, now {key}={now.get(key)} is asked for; "
                    f"name another folder with --out, or go on with the same settings{advice}"
                )
        return bool(more)

    def write(self, name: str, value: Any) -> None:
        try:
            write_json(self / name, value)
        except OSError as error:
            raise disk_error(error, self / name, "make room and run the same command again") from None


def _is_more(then: float | None, now: float | None) -> bool:
    """None is no limit."""
    return then is not None and (now is None or now > then)


def _unused(folder: Path) -> bool:
    """Nothing is in it but what a run that ended before its first file may leave."""
    return all(LEFT.fullmatch(path.name) and path.is_file() and not path.is_symlink() for path in folder.iterdir())


def free_folder(base: Path, requested: Mapping[str, Any]) -> Path:
    """The folder for a run nobody named: that of a run with the same settings, finished or not, else a new number."""
    number = 1
    while True:
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        run = RunFolder(path)
        if not (run / "run.json").exists():
            if not path.exists() or _unused(path):
                return path
        elif _same(run, requested):
            return path
        number += 1


def _same(run: RunFolder, requested: Mapping[str, Any]) -> bool:
    try:
        return not run._compare(requested)
    except OrchardError:
        return False


class Log:
    """log.csv, and what goes to the loggers. On resuming, lines after the checkpoint are dropped: they come again.

    `figures` are the task's own columns.
    """

    def __init__(self, run: RunFolder, step: int, figures: Sequence[str], loggers: Loggers):
        columns = (*LOG_COLUMNS[:4], *figures, *LOG_COLUMNS[4:])
        self.path = run / "log.csv"
        with self._naming():
            kept = [row for row in read_log(self.path) if int(row["step"]) <= step] if self.path.exists() else []
            with atomic(self.path) as file:
                text = io.TextIOWrapper(file, newline="", encoding="utf-8", write_through=True)
                writer = csv.DictWriter(text, columns, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(kept)
                text.detach()
            self._file = self.path.open("a", newline="", encoding="utf-8")
            self._writer = csv.DictWriter(self._file, columns, extrasaction="ignore")
        self._loggers = loggers

    def line(self, row: Mapping[str, Any]) -> None:
        with self._naming():
            self._writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        place = ("step", "epoch", "split", "seconds")
        metrics = {f"{key}/{row['split']}": float(value) for key, value in row.items() if key not in place}
        self._loggers.log(metrics, row["step"])

    def flush(self) -> None:
        with self._naming():
            self._file.flush()
        self._loggers.flush()

    def close(self, finished: bool) -> None:
        """Everything that counts is flushed before; on a full disk the rest is lost, which has been said."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._loggers.close(finished)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(error, self.path, "make room and run the same command again") from None


def read_log(path: Path) -> list[dict[str, str]]:
    """The lines of a log.csv; a last line cut off by a kill is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["seconds"] is not None and row["step"].isdigit()]


def versions() -> dict[str, str]:
    packages = ("orchard", "torch", "torchvision", "lightning-fabric", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
