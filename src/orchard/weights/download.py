"""One file of weights by its URL, checked against the sha256 that the URL states.

It is kept where torch.hub keeps its own (`$TORCH_HOME/hub/checkpoints`), so that neither fetches what the other has.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import torch

from orchard.console import Console
from orchard.errors import OrchardError, first_line
from orchard.files import atomic, disk_error
from orchard.terminal import note

TIMEOUT = 10.0  # seconds without a byte
LARGEST = 16 * 2**30  # bytes of a file, where nothing says how large a model is
CHUNK = 2**20


def checksum_of(url: str) -> str:
    """The sha256, or how it begins, that a URL states; "" where it states none.

    Three forms: a fragment `#sha256=...`; a folder of the path that is one (OpenAI); behind the last hyphen of the
    file's name at least eight digits of it (torchvision).
    """
    forms = (r"#sha256=([0-9a-f]{64})$", r"/([0-9a-f]{64})/[^/]+$", r"-([0-9a-f]{8,64})\.\w+$")
    return next((found[1] for form in forms if (found := re.search(form, url))), "")


def download(url: str) -> Path:
    """The file, fetched unless it is there with the right checksum.

    Raises OrchardError where it cannot be fetched, is cut short or is not what the checksum says.
    """
    folder, wanted = Path(torch.hub.get_dir()) / "checkpoints", checksum_of(url)
    place = folder / Path(urlsplit(url).path).name
    if wanted and place.is_file():
        with place.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest().startswith(wanted):
                return place
        note(f"{place} is not what its checksum says and is fetched again")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _opened(url) as answer, atomic(place) as file:
            size = int(answer.headers.get("Content-Length") or 0)
            check_room(url, size, folder)
            note(f"fetching {url}" + (f" ({megabytes(size)})" if size else ""))
            digest = hashlib.sha256()
            for chunk in _chunks(answer, url, size):
                digest.update(chunk)
                file.write(chunk)
            if not digest.hexdigest().startswith(wanted):
                raise OrchardError(
                    f"{url}: the sha256 of what came begins with {digest.hexdigest()[:8]}, expected {wanted[:8]}; "
                    "it was not kept"
                )
    except OSError as error:
        raise disk_error(error, place, "nothing of it was kept") from None
    return place


def check_room(what: str, size: int, folder: Path, largest: int = LARGEST) -> None:
    """OrchardError for what is too large to be weights of the model, or for the disk."""
    if size > largest:
        raise OrchardError(f"{what} has {megabytes(size)}, expected at most {megabytes(largest)} for this model")
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if size > free:
        raise OrchardError(f"{what} has {megabytes(size)}, {folder} has room for {megabytes(free)}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


@contextmanager
def _opened(url: str) -> Iterator[http.client.HTTPResponse]:
    """The server's answer. OrchardError for none, or another than the file."""
    try:
        answer = urllib.request.urlopen(url, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        raise OrchardError(f"{url} cannot be fetched: the server says {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        raise OrchardError(f"{url} cannot be fetched: {why}; is this machine on the network?") from None
    with answer:
        yield answer


def _chunks(answer: http.client.HTTPResponse, url: str, size: int) -> Iterator[bytes]:
    """What comes, with a bar on a terminal. OrchardError where it ends early or does not end."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console, come = Console(stderr=True), 0
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=size or None)
        while True:
            try:
                chunk = answer.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise OrchardError(f"{url} broke off after {megabytes(come)}: {first_line(error)}; try again") from None
            come += len(chunk)
            if come > (size or LARGEST):
                raise OrchardError(f"{url} gives more than the {megabytes(size or LARGEST)} that were expected")
            if not chunk:
                break
            bar.update(task, completed=come)
            yield chunk
    if come < size:
        raise OrchardError(f"{url} was cut short after {come:,} of {size:,} bytes; try again")
