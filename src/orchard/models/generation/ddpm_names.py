"""What other programs call the parts of Ho et al.'s U-Net.

One table serves all of them: `Words` says what each calls a part, and how it lays out a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from orchard.models import Rule
from orchard.models.attention_names import Layout, attention_rules, kernel_to_matrix, matrix_to_kernel
from orchard.nn.denoising_unet import UNetConfig

Rows = list[Rule | tuple[str, str]]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _transpose(matrix: Tensor) -> Tensor:
    return matrix.T


@dataclass(frozen=True)
class Words:
    """A program's names; `{}` is the number of a level or block. Layouts are pairs: theirs to ours, and back."""

    time: tuple[str, str]  # the two linear layers of the embedding
    down: str
    up: str
    up_from_full_resolution: bool  # ours counts the levels going up in the order of the computation
    block: str
    attention: str
    attention_norm: str
    qkv: tuple[str, str, str]
    out: str
    projection: str  # of the embedding, in a block
    shortcut: str
    downsample: str
    upsample: str
    middle: tuple[str, str, str]
    norm_out: str
    prefix: str = ""
    separator: str = "."
    weight: str = ".weight"
    bias: str = ".bias"
    gain: str = ".weight"  # of a norm
    offset: str = ".bias"
    convolution: tuple[Layout, Layout] = (_same, _same)
    linear: tuple[Layout, Layout] = (_same, _same)
    pointwise: tuple[Layout, Layout] = (_same, _same)  # the 1x1 convolution of a shortcut
    attended: tuple[Layout, Layout] = (kernel_to_matrix, matrix_to_kernel)


DDIM = Words(
    time=("temb.dense.0", "temb.dense.1"),
    down="down.{}",
    up="up.{}",
    up_from_full_resolution=True,
    block="block.{}",
    attention="attn.{}",
    attention_norm="norm",
    qkv=("q", "k", "v"),
    out="proj_out",
    projection="temb_proj",
    shortcut="nin_shortcut",
    downsample="downsample.conv",
    upsample="upsample.conv",
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    norm_out="norm_out",
)
TENSORFLOW = Words(
    time=("temb/dense0", "temb/dense1"),
    down="down_{}",
    up="up_{}",
    up_from_full_resolution=True,
    block="block_{}",
    attention="attn_{}",
    attention_norm="norm",
    qkv=("q", "k", "v"),
    out="proj_out",
    projection="temb_proj",
    shortcut="nin_shortcut",
    downsample="downsample/conv",
    upsample="upsample/conv",
    middle=("mid/block_1", "mid/attn_1", "mid/block_2"),
    norm_out="norm_out",
    prefix="model/",
    separator="/",
    weight="/W",
    bias="/b",
    gain="/gamma",
    offset="/beta",
    convolution=(lambda kernel: kernel.permute(3, 2, 0, 1), lambda kernel: kernel.permute(2, 3, 1, 0)),  # HWIO, OIHW
    linear=(_transpose, _transpose),
    pointwise=(lambda matrix: matrix.T[..., None, None], lambda kernel: kernel.flatten(1).T),
    attended=(_transpose, _transpose),
)
HF = Words(
    time=("time_embedding.linear_1", "time_embedding.linear_2"),
    down="down_blocks.{}",
    up="up_blocks.{}",
    up_from_full_resolution=False,
    block="resnets.{}",
    attention="attentions.{}",
    attention_norm="group_norm",
    qkv=("to_q", "to_k", "to_v"),
    out="to_out.0",
    projection="time_emb_proj",
    shortcut="conv_shortcut",
    downsample="downsamplers.0.conv",
    upsample="upsamplers.0.conv",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    norm_out="conv_norm_out",
    attended=(_same, _same),
)
HF_2022 = replace(HF, qkv=("query", "key", "value"), out="proj_attn")


def table(config: UNetConfig, words: Words) -> Rows:
    """The rules that translate between a program's names and ours."""
    w, last = words, len(config.multipliers) - 1

    def layer(ours: str, theirs: str, layout: tuple[Layout, Layout]) -> Rows:
        weight = Rule(f"{ours}.weight", (theirs + w.weight,), join=layout[0], split=_single(layout[1]))
        return [weight, (f"{ours}.bias", theirs + w.bias)]

    def norm(ours: str, theirs: str) -> Rows:
        return [(f"{ours}.weight", theirs + w.gain), (f"{ours}.bias", theirs + w.offset)]

    def block(ours: str, theirs: str) -> Rows:
        theirs += w.separator
        return [
            *norm(f"{ours}.norm1", f"{theirs}norm1"),
            *layer(f"{ours}.conv1", f"{theirs}conv1", w.convolution),
            *layer(f"{ours}.norm2.projection", theirs + w.projection, w.linear),
            *norm(f"{ours}.norm2.norm", f"{theirs}norm2"),
            *layer(f"{ours}.conv2", f"{theirs}conv2", w.convolution),
            *layer(f"{ours}.shortcut", theirs + w.shortcut, w.pointwise),
        ]

    def attention(ours: str, theirs: str) -> Rows:
        theirs += w.separator
        qkv = [theirs + name for name in w.qkv]
        to_matrix, from_matrix = w.attended
        rules = attention_rules(
            f"{ours}.attention",
            qkv,
            theirs + w.out,
            to_matrix=to_matrix,
            from_matrix=from_matrix,
            weight=w.weight,
            bias=w.bias,
        )
        return [*norm(f"{ours}.norm", theirs + w.attention_norm), *rules]

    rows: Rows = []
    for n in range(last + 1):
        for ours, name, number in (("down", w.down, n), ("up", w.up, last - n if w.up_from_full_resolution else n)):
            theirs = w.prefix + name.format(number) + w.separator
            rows += block(f"unet.{ours}.{n}.blocks.{{}}", theirs + w.block)
            rows += attention(f"unet.{ours}.{n}.attentions.{{}}", theirs + w.attention)
            resample = w.downsample if ours == "down" else w.upsample
            rows += layer(f"unet.{ours}samples.{n}", theirs + resample, w.convolution)
    first, between, second = (w.prefix + name for name in w.middle)
    return [
        *layer("time.fc1", w.prefix + w.time[0], w.linear),
        *layer("time.fc2", w.prefix + w.time[1], w.linear),
        *layer("unet.conv_in", f"{w.prefix}conv_in", w.convolution),
        *rows,
        *block("unet.middle.0", first),
        *attention("unet.middle.1", between),
        *block("unet.middle.2", second),
        *norm("unet.norm_out", w.prefix + w.norm_out),
        *layer("unet.conv_out", f"{w.prefix}conv_out", w.convolution),
    ]


def _single(layout: Layout) -> Callable[[Tensor], tuple[Tensor, ...]]:
    return lambda tensor: (layout(tensor),)


def ddim_names(config: UNetConfig) -> Rows:
    """The names of ermongroup/ddim, and of the PyTorch port of Ho et al.'s checkpoints that it reads."""
    return table(config, DDIM)


def tensorflow_names(config: UNetConfig) -> Rows:
    """The names of hojonathanho/diffusion's variables, moving averages under those of the variables themselves."""
    return table(config, TENSORFLOW)


def hf_names(config: UNetConfig) -> Rows:
    """The names of diffusers' UNet2DModel (down and up blocks with and without attention, one head)."""
    return table(config, HF)


def hf_2022_names(config: UNetConfig) -> Rows:
    """Those of diffusers' first releases, which the files of google/ddpm-cifar10-32 and its siblings have."""
    return table(config, HF_2022)
