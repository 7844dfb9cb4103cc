"""The kernels once more, with a compiler that watches every read, write and arithmetic operation of theirs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchard.inference.kernels import native_kernels

SANITIZERS = ("asan", "ubsan")


def runtime(name: str) -> str | None:
    """The library that has to be there before anything else, if this compiler has it."""
    found = subprocess.run(["c++", f"-print-file-name=lib{name}.so"], capture_output=True, text=True).stdout.strip()
    return found if Path(found).is_absolute() else None


@pytest.mark.slow
@pytest.mark.skipif(not native_kernels(), reason="there is no C++ compiler")
def test_kernels_read_and_write_only_what_is_theirs(tmp_path):
    runtimes = [runtime(name) for name in SANITIZERS]
    if None in runtimes:
        pytest.skip("this compiler has no sanitizers")
    compiler = tmp_path / "watching-c++"
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined"
    compiler.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec c++ "$@" {flags}\n')
    compiler.chmod(0o755)
    environment = {
        **os.environ,
        "CXX": str(compiler),
        "ORCHARD_CACHE": str(tmp_path / "cache"),
        "LD_PRELOAD": ":".join(filter(None, runtimes)),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves much behind
        "OMP_NUM_THREADS": "2",
    }
    tests = str(Path(__file__).with_name("test_decoding.py"))
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider {tests}".split()
    done = subprocess.run(
        [*command, "-k", "not compiler and not False"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert list((tmp_path / "cache" / "compiled").glob("kernels-*.so")), "the tests ran without native kernels"
