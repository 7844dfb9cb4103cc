"""What models that read one sentence and write another take: their checks, and examples for proofs and tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SOURCE, TARGET = 12, 10  # tokens of an example, where the context allows them


def check_source(source: Tensor, mask: Tensor | None, *, vocabulary: int, most: int | None) -> None:
    """Raise ValueError unless `source` is ids (B, S) int64, S at most `most`, and `mask`, where given, bool (B, S)."""
    _check_ids("source", source, vocabulary, most)
    if mask is not None and (mask.dtype != torch.bool or mask.shape != source.shape):
        shape = tuple(source.shape)
        raise ValueError(f"expected a bool mask {shape}, true at tokens, got {tuple(mask.shape)} {mask.dtype}")


def check_target(target: Tensor, batch: int, *, vocabulary: int, most: int | None) -> None:
    """Raise ValueError unless `target` is ids (batch, T) int64, T at most `most`."""
    _check_ids("target", target, vocabulary, most)
    if target.shape[0] != batch:  # len() would make exporters take it for a constant
        raise ValueError(f"expected {batch} targets, one for each source, got {len(target)}")


def _check_ids(name: str, ids: Tensor, vocabulary: int, most: int | None) -> None:
    """Numbers are looked at on the CPU only: elsewhere that would make every call wait for the device."""
    if ids.ndim != 2 or ids.dtype != torch.int64 or ids.shape[1] < 1 or (most is not None and ids.shape[1] > most):
        wanted = "T" if most is None else f"1 to {most}"
        raise ValueError(f"expected {name} ids (B, {wanted}) int64, got {tuple(ids.shape)} {ids.dtype}")
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        low, high = ids.aminmax()
        if low < 0 or high >= vocabulary:
            raise ValueError(f"expected {name} ids from 0 to {vocabulary - 1}, got {int(low)} to {int(high)}")


def example_sentences(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Ids at random; every second source is a quarter padding."""
    S, T = min(SOURCE, config.context), min(TARGET, config.context)
    ids = torch.randint(config.vocabulary - 1, (count, S + T), generator=generator)
    ids = ids + (ids >= config.pad)  # no token is the padding's
    lengths = torch.where(torch.arange(count) % 2 == 1, S - S // 4, S)
    mask = torch.arange(S) < lengths[:, None]
    return {"source": ids[:, :S].where(mask, config.pad), "target": ids[:, S:], "source_mask": mask}
