"""The native kernels for decoding steps: compiled once on a machine, opened in every process.

Libraries' kernels are made for many rows and read at a third to two thirds of the memory's rate here. Those in `native`
read each weight once, at about the rate of the memory, and of the cache what is seen alone. Without a C++ compiler
torch's own kernels do the same, slower.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

from orchard.cache import cache_folder, is_kept, keep, scratch
from orchard.inference.fast import COMPILED
from orchard.inference.hardware import processor

NATIVE = Path(__file__).parent / "native"
PATIENCE = 1800  # seconds for the compiler, on a machine that does much else
FAILED = ".failed"  # the ending of the file that keeps what the compiler said


def _library() -> tuple[str | None, Path]:
    """The compiler, if there is one, and the file that it makes of today's sources on this machine."""
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    sources = "".join(path.read_text() for path in sorted(NATIVE.iterdir()))
    facts = f"{sources}{torch.__version__}{processor()}{compiler}"
    return compiler, cache_folder(COMPILED) / f"kernels-{hashlib.sha256(facts.encode()).hexdigest()[:24]}.so"


def build_kernels(say: Callable[[str], None]) -> None:
    """Compile the native kernels if they are not there yet; `say` is told what takes so long, or why they are not."""
    compiler, library = _library()
    if compiler is None:
        return
    why = library.with_suffix(FAILED)
    if not why.exists() and not is_kept(library):
        say("compiling the native kernels (about 20 s, once on this machine)")
    if not native_kernels():
        more = f"; {why} says why, and without that file they are tried again" if why.exists() else ""
        say(f"they cannot be compiled here, so torch's own are used, which are slower{more}")


@functools.cache
def native_kernels() -> bool:
    """Are the native kernels there? Builds them the first time; False without a compiler or where the build failed.

    A library in the cache that is not as it was written is made again. Raises OrchardError for a cache that others
    could have written into.
    """
    compiler, library = _library()
    if compiler is None or library.with_suffix(FAILED).exists():
        return False
    try:
        if not is_kept(library):
            _build(compiler, library)
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except subprocess.SubprocessError as error:  # it would fail again
        with contextlib.suppress(OSError):
            library.with_suffix(FAILED).write_bytes(getattr(error, "stderr", None) or str(error).encode())
        return False
    except OSError:
        return False
    torch.library.register_fake("orchard::rows")(lambda x, w, scale, bias, outputs: x.new_empty(x.shape[0], outputs))
    torch.library.register_fake("orchard::attend")(lambda q, k, v, mask: torch.empty_like(q.contiguous()))
    return True


def _build(compiler: str, library: Path) -> None:
    root = Path(torch.__file__).parent
    with scratch(library.parent) as folder:
        made = folder / library.name
        words = [compiler, "-O3", "-march=native", "-fopenmp", "-std=c++20", "-shared", "-fPIC"]
        places = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}", f"-L{root / 'lib'}"]
        command = [*words, *places, str(NATIVE / "operators.cpp"), "-ltorch_cpu", "-lc10", "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
        keep(made, library)
