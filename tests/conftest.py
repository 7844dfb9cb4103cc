"""What all tests share: one thread a process (two of them run at a time), and the folder of stored cases."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from orchard.data import DataSettings, open_data
from orchard.data.contracts import ImageData

LONGEST = ("test_battery", "test_training", "test_readme", "test_recipes", "test_battery_references")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no process waits for them at the end.

    A file runs in one process (`--dist loadfile`), where its tests share what fixtures made, the battery its models.
    """
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell that begins tests in the background lets them, and all that they begin, ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction starts no process that outlives it."""
    monkeypatch.setenv("ORCHARD_KEEP_SESSIONS", "0")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of output breaks at a place that depends on how long the name of a temporary folder is."""
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture
def golden() -> Path:
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return open_data("digits", DataSettings())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of eight JPEGs each, larger than what counts as small."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in ("ant", "bee", "cat"):
        (root / label).mkdir()
        for number in range(8):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
            coarse.resize((120 + 4 * number, 90), Image.Resampling.BICUBIC).save(root / label / f"{number}.jpg")
    return root
