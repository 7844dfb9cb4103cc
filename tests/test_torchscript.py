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
        with pytest.raises(OrchardError, match=r"not a (TorchScript|zip) archive"):
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


MODULE = b"c__torch__\nM\n)\x81"  # an empty object of the class M


def hand_made(path: Path, tree: bytes, text: str = "class M(Module):\n  pass", **more: bytes) -> Path:
    """An archive around a pickled tree and the text of a program."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        files = {"constants.pkl": b"", "code/__torch__.py": text, "data.pkl": b"\x80\x02" + tree + b".", **more}
        for name, content in files.items():
            archive.writestr(f"m/{name}", content)
    return path


def test_modules_that_hold_one_another_end(tmp_path: Path) -> None:
    cycle = MODULE + b"q\x00}X\x01\x00\x00\x00ah\x00sb"
    twice = MODULE + b"}b" + b"q\x00"
    for n in range(60):  # two to the power of sixty names
        twice += MODULE + b"}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cubq%c" % (n, n, n + 1)
    for tree in (cycle, twice):
        with pytest.raises(OrchardError, match="hold one another without end"):
            read_torchscript(hand_made(tmp_path / "model.pt", tree))


@pytest.mark.parametrize(
    "line", ["__parameters__ = [" * 200, "__parameters__ = " + "[" * 3000, "class M(Module):\n" * 9999]
)
def test_a_program_s_text_is_read_in_one_pass(tmp_path: Path, line: str) -> None:
    tree = MODULE + b"0" + b"".join(b"c__torch__\nM%d\n0" % n for n in range(300)) + b"N"
    assert read_torchscript(hand_made(tmp_path / "model.pt", tree, "class M(Module):\n  " + line)) == {}


def test_memory_is_not_taken_for_what_a_small_file_claims(tmp_path: Path) -> None:
    bomb = hand_made(tmp_path / "bomb.pt", MODULE + b"}b", **{"data/0": bytes(10**8)})
    with pytest.raises(OrchardError, match=r"would unpack to 100,000,\d+, which is refused"):
        read_torchscript(bomb)
    assert read_torchscript(hand_made(tmp_path / "memo.pt", b"Nr\xff\xff\xff\x7f")) == {}  # place 2^31 of a memo
