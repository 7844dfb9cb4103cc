"""The lambda layer: long-range interactions without attention (Bello 2021, arXiv:2102.08602).

Attention compares each query with every position of its context. Here the context is summed up first, in a small
matrix, the lambda, which is then applied to the query: λ_n = Σ_m (softmax(k)_m + e_nm) v_mᵀ and y_n = λ_nᵀ q_n
(section 3.1). All heads share the lambdas (multi-query lambdas, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LambdaLayer(nn.Module):
    """Maps (B, inputs, H, W) to maps (B, outputs, H, W).

    Args:
        inputs: channels of what comes in.
        outputs: channels of what goes out, `heads` times those of a value.
        positions: makes position lambdas (B, V, keys, H W) of values (B, depth, V, H, W), as the modules below do.
        keys: channels of a key and of a head's query, k in the paper.
        heads: queries for each position.
        depth: keys and values for each position, over which lambdas are summed; u in the paper, the intra-depth.

    Raises ValueError where the heads do not divide the outputs.
    """

    def __init__(self, inputs: int, outputs: int, positions: nn.Module, *, keys: int, heads: int, depth: int):
        super().__init__()
        if outputs % heads:
            raise ValueError(f"expected heads that divide the {outputs} output channels, got {heads}")
        self.outputs = outputs
        self.shapes = ((heads, keys), (depth, keys), (depth, outputs // heads))  # of queries, keys and values
        self.to_qkv = nn.Conv2d(inputs, sum(count * size for count, size in self.shapes), 1, bias=False)
        self.norm_q = nn.BatchNorm2d(heads * keys)
        self.norm_v = nn.BatchNorm2d(depth * outputs // heads)
        self.positions = positions

    def initialise(self) -> None:
        """Projections that keep the variance of what comes in; the norms take care of queries and values anyway."""
        nn.init.normal_(self.to_qkv.weight, std=self.to_qkv.in_channels**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        queries, keys, values = self.to_qkv(x).split([count * size for count, size in self.shapes], 1)
        of_queries, of_keys, of_values = self.shapes
        queries = self.norm_q(queries).reshape(-1, *of_queries, height * width)
        keys = keys.reshape(-1, *of_keys, height * width).softmax(-1)  # over the positions of the context
        values = self.norm_v(values).reshape(-1, *of_values, height, width)
        content = torch.einsum("bukm,buvm->bvk", keys, values.flatten(3))
        lambdas = content[..., None] + self.positions(values)
        return torch.einsum("bhkn,bvkn->bhvn", queries, lambdas).reshape(-1, self.outputs, height, width)


class LocalPositions(nn.Module):
    """Position lambdas of the `scope` x `scope` positions around each one: a convolution (lambda convolution).

    A weight stands for the distance from the query to a position. Beyond the border values are zero. `bias` adds a
    vector to all position lambdas, which the equations do not have and the re-implementations do.
    """

    def __init__(self, scope: int, *, keys: int, depth: int, bias: bool):
        super().__init__()
        if scope < 1 or scope % 2 == 0:
            raise ValueError(f"expected an odd scope of at least 1, got {scope}")
        self.conv = nn.Conv2d(depth, keys, scope, padding=scope // 2, bias=bias)

    def initialise(self) -> None:
        nn.init.normal_(self.conv.weight, std=self.conv.out_channels**-0.5)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, values: Tensor) -> Tensor:
        batch, depth, channels, height, width = values.shape
        # Every channel of the values is convolved alike, as if it were a picture of `depth` channels.
        lambdas = self.conv(values.transpose(1, 2).reshape(-1, depth, height, width))
        return lambdas.reshape(batch, channels, -1, height * width)  # type: ignore[no-any-return]


class GlobalPositions(nn.Module):
    """Position lambdas of the whole map, which is `size` high and wide: a table over relative positions.

    The embedding of position m for the query n stands at m - n, moved so that no index is negative.
    """

    def __init__(self, size: tuple[int, int], *, keys: int, depth: int):
        super().__init__()
        self.size = size
        self.table = nn.Parameter(torch.empty(2 * size[0] - 1, 2 * size[1] - 1, keys, depth))

    def initialise(self) -> None:
        nn.init.normal_(self.table, std=self.table.shape[2] ** -0.5)

    def forward(self, values: Tensor) -> Tensor:
        if tuple(values.shape[3:]) != self.size:
            raise ValueError(f"expected a map of {self.size[0]} x {self.size[1]}, got {tuple(values.shape[3:])}")
        rows, columns = (self._distances(side) for side in self.size)
        embeddings = self.table[rows[:, None, :, None], columns[None, :, None, :]]  # (H, W, H, W, K, U), queries first
        embeddings = embeddings.flatten(2, 3).flatten(0, 1)
        return torch.einsum("nmku,buvm->bvkn", embeddings, values.flatten(3))

    def _distances(self, side: int) -> Tensor:
        """Index of each position's distance from each query along one axis, (side, side)."""
        positions = torch.arange(side, device=self.table.device)
        return positions[None, :] - positions[:, None] + side - 1
