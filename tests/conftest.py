"""What all tests share: one thread a process (two of them run at a time), and the folder of stored cases."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def golden() -> Path:
    return Path(__file__).parent / "golden"
