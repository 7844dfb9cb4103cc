"""CLIP's transformers: the picture tower of patches and the text tower (arXiv:2103.00020, sections 2.4 and 2.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchard.nn.activation import QuickGELU
from orchard.nn.attention import Attention
from orchard.nn.transformer import Mlp, PreNormBlock, Stack

EPS = 1e-5  # of every layer norm


def _block(width: int, heads: int, causal: bool) -> PreNormBlock:
    return PreNormBlock(
        nn.LayerNorm(width, eps=EPS),
        Attention(width, heads, bias=True, causal=causal),
        nn.LayerNorm(width, eps=EPS),
        Mlp(width, 4 * width, QuickGELU()),
        drop_path=0.0,
    )


class PatchTower(nn.Module):
    """Pictures (B, C, H, W) to features (B, outputs): ViT with one more norm, before the first block."""

    def __init__(self, channels: int, cells: int, patch: int, width: int, depth: int, heads: int, outputs: int):
        super().__init__()
        self.patch_embed = nn.Conv2d(channels, width, kernel_size=patch, stride=patch, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.position = nn.Parameter(torch.randn(1 + cells, width) * width**-0.5)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.stack = Stack([_block(width, heads, causal=False) for _ in range(depth)], nn.LayerNorm(width, eps=EPS))
        self.projection = nn.Linear(width, outputs, bias=False)
        for module in self.modules():
            if isinstance(module, Attention):
                nn.init.xavier_uniform_(module.qkv.weight)
                nn.init.zeros_(module.qkv.bias)
                nn.init.zeros_(module.out.bias)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images).flatten(2).transpose(1, 2)  # (B, width, h, w) → (B, h·w, width)
        x = torch.cat([self.class_token.expand(x.shape[0], 1, -1), x], dim=1)
        x = self.stack(self.norm(x + self.position))
        return self.projection(x[:, 0])

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        blocks = [(f"stack.blocks.{i}.",) for i in range(len(self.stack.blocks))]
        return [("patch_embed.", "class_token", "position", "norm."), *blocks, ("stack.norm.", "projection.")]


class TextTower(nn.Module):
    """Token ids (N, T) to features (N, outputs): a causal transformer, read where the sentence ends.

    The end token is the largest id of a vocabulary, so its place is that of a row's largest id (the first such place,
    where the rest is filled with end tokens). Being causal, the tower has seen nothing of what stands behind it.
    """

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int, outputs: int):
        super().__init__()
        self.token_embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.empty(context, width))
        self.stack = Stack([_block(width, heads, causal=True) for _ in range(depth)], nn.LayerNorm(width, eps=EPS))
        self.projection = nn.Linear(width, outputs, bias=False)
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)
        residual = (2 * width * depth) ** -0.5  # for what is added to the stream 2 · depth times
        for module in self.modules():
            if isinstance(module, Attention):
                nn.init.normal_(module.qkv.weight, std=width**-0.5)
                nn.init.normal_(module.out.weight, std=residual)
                nn.init.zeros_(module.qkv.bias)
                nn.init.zeros_(module.out.bias)
            elif isinstance(module, Mlp):
                nn.init.normal_(module.fc1.weight, std=(2 * width) ** -0.5)
                nn.init.normal_(module.fc2.weight, std=residual)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.stack(self.token_embed(tokens) + self.position[: tokens.shape[1]])
        ends = tokens.argmax(dim=1)
        return self.projection(x[torch.arange(x.shape[0], device=x.device), ends])

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        blocks = [(f"stack.blocks.{i}.",) for i in range(len(self.stack.blocks))]
        return [("token_embed.", "position"), *blocks, ("stack.norm.", "projection.")]
