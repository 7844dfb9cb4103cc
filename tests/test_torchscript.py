"""TorchScript archives give their weights, and their code is never run."""

import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.weights.torchscript import is_torchscript, read_torchscript


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.narrow = nn.Linear(4, 2).half()
        self.turned = nn.Parameter(torch.randn(5, 3).T)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("resolution", torch.tensor(224))
        self.loose = torch.randn(3)  # no weight: it is in no state dict
        self.sizes = [1, 2]

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x) * self.scale + self.loose.sum()


@pytest.fixture(params=["script", "trace"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = Mixed().eval()
    with warnings.catch_warnings(action="ignore"):
        program = torch.jit.script(model) if request.param == "script" else torch.jit.trace(model, torch.randn(2, 3))
        torch.jit.save(program, tmp_path / "model.pt")
    return tmp_path / "model.pt", program.state_dict()


def test_weights_are_those_of_the_program(archive: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = archive
    found = read_torchscript(path)
    assert is_torchscript(path) and found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in state.items())


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("no archive")
    for name in ("plain.pt", "text.pt"):
        assert not is_torchscript(tmp_path / name)
        with pytest.raises(OrchardError, match="no TorchScript archive"):
            read_torchscript(tmp_path / name)


def test_code_is_refused(archive: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return print, ("run",)

    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(archive[0]) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickle.dumps(Evil()) if name.endswith("/data.pkl") else source.read(name))
    with pytest.raises(OrchardError, match=r"asks for builtins\.print"):
        read_torchscript(evil)
