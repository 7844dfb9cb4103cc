"""Weights in a repository of the Hugging Face Hub, or of a mirror (HF_ENDPOINT): safetensors and the files beside them.

Nothing else is fetched: no pickle and no code. What comes lies in the Hub's own cache, where other libraries find it.
Environment variables of huggingface_hub count: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.errors import OrchardError, UsageError, first_line
from orchard.files import LARGEST_JSON, read_as
from orchard.terminal import note
from orchard.weights.beside import CONFIG, PROCESSOR, WEIGHT_FILES
from orchard.weights.download import TIMEOUT, check_room, megabytes
from orchard.weights.foreign import Index

SCHEME = "hub:"
INDEX = ".index.json"
SAFE = tuple(name for name in WEIGHT_FILES if ".safetensors" in name)


@dataclass(frozen=True)
class Repository:
    """A repository at one commit: what it holds, in bytes, and the sha256 of the large files."""

    name: str
    commit: str
    sizes: dict[str, int]
    digests: dict[str, str]

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}@{self.commit}"


def fetch(place: str, beside: tuple[str, ...], largest: int) -> tuple[Path, str]:
    """The folder that has the weights of `hub:OWNER/NAME[@REVISION]`, and the place with the commit that they are of.

    `beside`: names of other files that are wanted where they are there. `largest`: bytes of all weights. Raises
    UsageError for a repository or revision that there is not, OrchardError for all else: no network, no safetensors, a
    file cut short or of another checksum.
    """
    name, _, revision = place.removeprefix(SCHEME).partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII) or ("@" in place and not revision):
        raise UsageError(f"{place!r}: expected hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return _from_cache(name, revision or "main")
    found = _look(name, revision)
    weights = next((file for file in SAFE if file in found.sizes), None)
    if weights is None:
        pickles = [file for file in found.sizes if file.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"))]
        has = f" (it has {', '.join(sorted(pickles)[:3])})" if pickles else ""
        raise OrchardError(
            f"{found} has no {SAFE[0]}{has}, and nothing else is fetched; another revision may have it, such as one of "
            f"its pull requests: hub:{name}@refs/pr/NUMBER"
        )
    small = [file for file in (*beside, CONFIG, PROCESSOR) if file in found.sizes]
    small += [weights] if weights.endswith(INDEX) else []
    for file in small:
        if found.sizes[file] > LARGEST_JSON:
            raise OrchardError(f"{found}: {file} has {megabytes(found.sizes[file])}, which is no {file}")
    folder = [_fetch_file(found, file) for file in small]
    shards = _shards(found, folder[-1]) if weights.endswith(INDEX) else [weights]
    size = sum(found.sizes[file] for file in shards)
    check_room(str(found), size, Path(constants.HF_HUB_CACHE), largest)
    note(f"{found}: {', '.join([*shards[:3], *(['...'] if len(shards) > 3 else []), *small])} ({megabytes(size)})")
    for file in shards:
        path = _fetch_file(found, file)
    return path.parent, str(found)


def _shards(found: Repository, index: Path) -> list[str]:
    names = sorted(set(read_as(index, Index).weight_map.values()))
    odd = [name for name in names if name not in found.sizes or "/" in name or not name.endswith(".safetensors")]
    if odd or not names:
        raise OrchardError(f"{found}: {index.name} names {(odd or ['nothing'])[0][:80]!r}, which is not beside it")
    return names


def _look(name: str, revision: str) -> Repository:
    """What the repository holds now."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"{SCHEME}{name}"
    try:
        info = HfApi(endpoint=_endpoint()).model_info(
            name, revision=revision or None, files_metadata=True, timeout=TIMEOUT
        )
    except GatedRepoError:
        raise OrchardError(f"{where} is given only to who has accepted its terms: {_url()}/{name}") from None
    except RevisionNotFoundError:
        raise UsageError(f"{where} has no revision {revision!r}; name a branch, a tag or a commit") from None
    except RepositoryNotFoundError:
        raise UsageError(
            f"{_url()} has no model {name!r}, or it is private: then `hf auth login`, or HF_TOKEN, is needed"
        ) from None
    except HfHubHTTPError as error:
        raise OrchardError(f"{_url()} does not answer for {where}: {first_line(error)}") from None
    except Exception as error:  # of whichever library carries its requests
        raise _unreachable(where, error) from None
    files = {file.rfilename: file for file in info.siblings or ()}
    if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
        raise OrchardError(f"{_url()} does not say which commit {where} is at, so that what came could not be named")
    return Repository(
        name, str(info.sha),
        {key: file.size for key, file in files.items() if file.size is not None},
        {key: file.lfs.sha256 for key, file in files.items() if file.lfs},
    )  # fmt: skip


def _fetch_file(found: Repository, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        """Ends a download that begins again and again, which the library would go on with for ever."""

        come = 0

        def update(self, n: float | None = 1) -> bool | None:
            self.come += max(int(n or 0), 0)
            if self.come > 3 * found.sizes[file] + 2**20:
                raise OrchardError(f"{found}: {file} breaks off each time before it is whole; try again later")
            return super().update(n)  # type: ignore[no-any-return]

    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)  # each of its tries is two lines of warnings; the last one's error is ours to say
    try:
        path = Path(
            hf_hub_download(
                found.name, file, revision=found.commit, endpoint=_endpoint(), etag_timeout=TIMEOUT, tqdm_class=Bar
            )
        )
    except OrchardError:
        raise
    except Exception as error:  # of whichever library carries its requests
        raise _unreachable(f"{found}: {file}", error) from None
    finally:
        logger.setLevel(before)
    _check(found, file, path)
    return path


def _check(found: Repository, file: str, path: Path) -> None:
    """OrchardError for a file that is not what the repository says; it is removed, so that it is fetched again."""
    fault = ""
    if path.stat().st_size != found.sizes[file]:
        fault = f"it has {path.stat().st_size:,} bytes, expected {found.sizes[file]:,}"
    elif file in found.digests:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != found.digests[file]:
            fault = f"its sha256 begins with {digest[:8]}, expected {found.digests[file][:8]}"
    if fault:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise OrchardError(f"{found}: {file} did not come whole: {fault}; it was removed, try again")


def _from_cache(name: str, revision: str) -> tuple[Path, str]:
    """What was fetched before."""
    from huggingface_hub import try_to_load_from_cache

    for file in SAFE:
        there: Any = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(there, str):
            return Path(there).parent, f"{SCHEME}{name}@{Path(there).parent.name}"
    raise OrchardError(
        f"{SCHEME}{name}@{revision} was not fetched before, and HF_HUB_OFFLINE says that nothing is; unset it"
    )


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _url() -> str:
    from huggingface_hub import constants

    return _endpoint() or constants.ENDPOINT


def _unreachable(where: str, error: Exception) -> OrchardError:
    return OrchardError(
        f"{where} cannot be fetched from {_url()}: {type(error).__name__}: {first_line(error)}; what was fetched "
        "before is used with HF_HUB_OFFLINE=1, a mirror is named by HF_ENDPOINT"
    )
