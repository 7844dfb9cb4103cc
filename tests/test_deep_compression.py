"""Deep Compression against its golden case, and the file that it writes."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orchard.compression.deep_compression.pruning import masks_by_sparsity, masks_by_std
from orchard.compression.deep_compression.sharing import Shared, cluster
from orchard.errors import OrchardError
from orchard.weights import huffman
from orchard.weights.deep_compression import SharedWeight, decode, encode, read_encoded, relative_indices
from orchard.weights.golden import Stored, read_golden

LAYERS = ("fc1", "fc2", "fc3")


@pytest.fixture(scope="module")
def case() -> Stored:
    return read_golden(Path(__file__).parent / "golden" / "deep_compression" / "lenet_300_100_like")


def test_masks_are_those_of_the_golden_case(case: Stored) -> None:
    weights = {name: case.state[f"{name}.weight"] for name in LAYERS}
    args = case.meta["args"]
    by_std, by_share = masks_by_std(weights, args["s"]), masks_by_sparsity(weights, args["q"] / 100)
    for name in LAYERS:
        assert torch.equal(by_std[name].float(), case.computed(f"std.{name}.mask"))
        assert torch.equal(by_share[name].float(), case.computed(f"percentile.{name}.mask"))


def test_shared_weights_and_huffman_sizes_are_those_of_the_golden_case(case: Stored) -> None:
    for name in LAYERS:
        pruned, expected = case.computed(f"std.{name}.weight"), case.computed(f"shared.{name}.weight")
        centroids, codes = cluster(pruned, case.meta["args"]["bits"])
        torch.testing.assert_close(centroids.sort().values, case.computed(f"shared.{name}.codebook").sort().values)
        dense = SharedWeight(centroids, codes).dense()
        torch.testing.assert_close(dense, expected)
        counts = np.bincount(codes[codes > 0].numpy())
        bits = int((counts * huffman.code_lengths(counts)).sum())
        header = 1  # byte of the reference's stream
        assert header + -(-bits // 8) == int(case.computed(f"huffman.{name}.bytes_tree_data")[0, 1])


def test_a_centroid_learns_by_the_sum_of_its_weights_gradients() -> None:
    codes = torch.tensor([[0, 1, 2], [2, 2, 0]])
    shared, centroids = Shared(torch.tensor([0.5, -1.0]), codes), torch.tensor([0.5, -1.0], requires_grad=True)
    gradient = torch.arange(6.0).view(2, 3)
    shared(centroids).backward(gradient)
    assert centroids.grad is not None
    assert centroids.grad.tolist() == [1.0, 2.0 + 3.0 + 4.0]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]),
)  # fmt: skip
def test_the_decoder_gives_the_same_weights_to_the_bit(
    n: int, k: int, share: float, seed: int, kind: torch.dtype
) -> None:
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(1, k + 1, (2, n), generator=draw) * (torch.rand(2, n, generator=draw) < share**4)
    weight = SharedWeight(torch.randn(k, generator=draw), codes)
    tensors: dict[str, Tensor | SharedWeight] = {"a.weight": weight, "b": torch.randn(n).to(kind), "c": torch.tensor(3)}
    data, parts = encode(tensors)
    found = decode(data)
    assert list(found) == list(tensors)
    assert torch.equal(found["a.weight"].view(torch.int32), weight.dense().view(torch.int32))
    assert found["b"].dtype == kind and torch.equal(found["b"], tensors["b"]) and found["c"] == 3
    assert parts["a.weight"].codebook == 4 * k


def test_gaps_that_do_not_fit_are_broken_by_fillers() -> None:
    """Figure 2 of the paper, where an index of three bits spans eight: 1, 4, 15 is 1, 3, a filler at 8, 3."""
    codes = np.zeros(16, np.int64)
    codes[[1, 4, 15]] = [1, 2, 3]
    values, zeros = relative_indices(codes, 3)
    assert values.tolist() == [1, 2, 0, 3]
    assert (zeros + 1).tolist() == [2, 3, 8, 3]


def damage(data: bytes, at: int, value: int) -> bytes:
    """One byte changed, and the checksum put right, as somebody who means harm would."""
    broken = bytearray(data[:-4])
    broken[at] = value
    return bytes(broken) + zlib.crc32(broken).to_bytes(4, "little")


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.zeros(10_000, dtype=torch.int64)
    codes[::1000] = 1
    data, _ = encode({"w": SharedWeight(torch.tensor([1.0]), codes)})
    assert len(data) < 200
    monkeypatch.setattr("orchard.weights.deep_compression.SPARE", 0)
    assert decode(data)["w"].sum() == 10
    monkeypatch.setattr("orchard.weights.deep_compression.MOST_TIMES", 100)
    (tmp_path / "model.dc").write_bytes(data)
    with pytest.raises(OrchardError, match=r"model\.dc .*'w' makes its weights over 100 times as large"):
        read_encoded(tmp_path / "model.dc")


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    codes = torch.randint(0, 4, (30, 7), generator=torch.Generator().manual_seed(0))
    data, _ = encode({"w": SharedWeight(torch.tensor([1.0, 2.0, 3.0]), codes), "b": torch.ones(5)})
    path = tmp_path / "model.dc"
    path.write_bytes(data[:-9])
    with pytest.raises(OrchardError, match=r"model\.dc is damaged .* its checksum is wrong"):
        read_encoded(path)
    path.write_bytes(data[:7] + b"\x02" + data[8:])
    with pytest.raises(OrchardError, match="it is of version 2, expected 1"):
        read_encoded(path)
    rng, refused = np.random.default_rng(0), 0
    for at in range(8, len(data) - 4):
        path.write_bytes(damage(data, at, int(rng.integers(256))))
        try:
            read_encoded(path)  # a changed value may be as good as the one before
        except OrchardError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 20
