"""NASNet-A: learning transferable architectures for scalable image recognition (Zoph et al. 2017, arXiv:1707.07012).

Two cells were found by search on small pictures (figure 4), one that keeps the size and one that halves it; the network
for large pictures is many of both. A cell takes the two maps before it and adds five pairs of simple operations. An
"N @ P" network has N cells between reductions and P channels before the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from orchard.models import Landmark
from orchard.nn.checks import check_images
from orchard.nn.conv_norm import SameConv2d, initialise_by_fan_out

norm = partial(nn.BatchNorm2d, eps=1e-3)

# Figure 4, row by row: each map is the sum of two operations. Maps 0 and 1 are those that come in, the one before the
# last and the last; 2 to 6 are the rows themselves.
Row = tuple[tuple[str, int], tuple[str, int]]
NORMAL: tuple[Row, ...] = (
    (("separable 5", 1), ("separable 3", 0)),
    (("separable 5", 0), ("separable 3", 0)),
    (("average", 1), ("identity", 0)),
    (("average", 0), ("average", 0)),
    (("separable 3", 1), ("identity", 1)),
)
REDUCTION: tuple[Row, ...] = (
    (("separable 5", 1), ("separable 7", 0)),
    (("maximum", 1), ("separable 7", 0)),
    (("average", 1), ("separable 5", 0)),
    (("average", 2), ("identity", 3)),
    (("separable 3", 2), ("maximum", 1)),
)
SIDES = ("left", "right")
JOINED = {NORMAL: (0, 2, 3, 4, 5, 6), REDUCTION: (3, 4, 5, 6)}  # the maps that no row uses leave side by side


@dataclass(frozen=True)
class NASNetConfig:
    cells: int  # N: normal cells in each of the three stages
    last: int  # P: channels before the head, 24 times those of an operation in the first stage
    stem: int
    stem_cells: int = 2  # reductions before the first stage
    skip_reduction: bool = False  # whether a cell behind a reduction sees the cell before the last, not the last
    dropout: float = 0.5
    drop_path: float = 0.0  # of the last cell's operations; earlier ones less, linearly
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if self.cells < 1 or self.stem_cells < 1:
            raise ValueError("cells and stem_cells are at least 1")
        if self.last % (24 * 2**self.stem_cells):
            raise ValueError(f"last is a multiple of {24 * 2**self.stem_cells}, got {self.last}")


class Pool(nn.Module):
    """Mean or maximum of 3x3, (B, C, H, W) → (B, C, ceil(H / stride), ...), padded SAME; padding counts for nothing."""

    def __init__(self, kind: str, stride: int):
        super().__init__()
        self.kind, self.stride = kind, stride

    def forward(self, x: Tensor) -> Tensor:
        # At a stride of two, SAME pads an odd side at both ends and an even one at the far end, where ceil_mode is.
        padding = 1 if self.stride == 1 else (x.shape[2] % 2, x.shape[3] % 2)
        if self.kind == "maximum":
            return F.max_pool2d(x, 3, self.stride, padding, ceil_mode=True)
        return F.avg_pool2d(x, 3, self.stride, padding, ceil_mode=True, count_include_pad=False)


def pointwise(inputs: int, outputs: int) -> nn.Sequential:
    """Rectifier, 1x1 and norm, (B, inputs, H, W) → (B, outputs, H, W)."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs))


def separable(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Rectifier, depthwise, 1x1 and norm, twice; the stride in the first, (B, inputs, ...) → (B, outputs, ...)."""
    layers: list[nn.Module] = []
    for channels, step in ((inputs, stride), (outputs, 1)):
        depthwise = SameConv2d(channels, channels, kernel, step, groups=channels)
        layers += [nn.ReLU(), depthwise, nn.Conv2d(channels, outputs, 1, bias=False), norm(outputs)]
    return nn.Sequential(*layers)


class FactorizedReduction(nn.Module):
    """Half the size without losing pixels, (B, inputs, H, W) → (B, outputs, ceil(H / 2), ceil(W / 2)).

    Every second pixel for one half of the channels, those one further down and right for the other.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.conv2 = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (-1, 1, -1, 1))
        out: Tensor = self.norm(torch.cat([self.conv1(x[:, :, ::2, ::2]), self.conv2(shifted[:, :, ::2, ::2])], 1))
        return out


class Cell(nn.Module):
    """The last map (B, inputs, H, W) and the one before it → (B, 6 width, H, W), a reduction: (B, 4 width, H / 2, W / 2).

    Args:
        table: NORMAL or REDUCTION.
        inputs: channels of the last map.
        before: channels of the map before it, None where there is none and the last stands in, as it is.
        larger: whether that map is twice as large as the last.
        width: channels of every operation.
        drop_path: probability that a sample skips an operation in training.
    """

    def __init__(
        self, table: tuple[Row, ...], inputs: int, before: int | None, larger: bool, width: int, drop_path: float
    ):
        super().__init__()
        self.table = table
        self.outputs = len(JOINED[table]) * width
        self.here = pointwise(inputs, width)
        self.before: nn.Module = nn.Identity()
        if before is not None:
            self.before = FactorizedReduction(before, width) if larger else pointwise(before, width)
        channels = [inputs if before is None else width, *[width] * 6]
        self.operations = nn.ModuleDict()
        for number, row in enumerate(table):
            for side, (kind, source) in zip(SIDES, row, strict=True):
                stride = 2 if table is REDUCTION and source < 2 else 1
                self.operations[f"{number}_{side}"] = self._operation(kind, channels[source], width, stride)
        self.drop_path = StochasticDepth(drop_path, "row")

    @staticmethod
    def _operation(kind: str, inputs: int, width: int, stride: int) -> nn.Module:
        name, _, kernel = kind.partition(" ")
        if name == "separable":
            return separable(inputs, width, int(kernel), stride)
        return nn.Identity() if name == "identity" else Pool(name, stride)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        maps = [self.before(before), self.here(x)]
        for number, row in enumerate(self.table):
            terms = []
            for side, (kind, source) in zip(SIDES, row, strict=True):
                term = self.operations[f"{number}_{side}"](maps[source])
                terms.append(term if kind == "identity" else self.drop_path(term))
            maps.append(terms[0] + terms[1])
        return torch.cat([maps[index] for index in JOINED[self.table]], 1)


class NASNet(nn.Module):
    """Pictures (B, C, H, W) of at least 3 pixels, normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("head",)

    def __init__(self, config: NASNetConfig):
        super().__init__()
        self.config = c = config
        width = c.last // 24
        self.stem = nn.Sequential(nn.Conv2d(c.in_channels, c.stem, 3, stride=2, bias=False), norm(c.stem))
        total = c.stem_cells + 3 * c.cells + 2
        built: list[tuple[int, int]] = [(c.stem, 2)]  # channels and stride of every map so far

        def cell(table: tuple[Row, ...], width: int, before: tuple[int, int] | None) -> Cell:
            (inputs, stride), share = built[-1], len(built) / total
            larger = before is not None and before[1] < stride
            one = Cell(table, inputs, before[0] if before else None, larger, width, c.drop_path * share)
            built.append((one.outputs, 2 * stride if table is REDUCTION else stride))
            return one

        self.stem_cells = nn.ModuleList()
        for i in range(c.stem_cells):
            self.stem_cells.append(cell(REDUCTION, width >> (c.stem_cells - i), built[-2] if i else None))
        taps = built[:-1]
        self.stages, self.reductions = nn.ModuleList(), nn.ModuleList()
        for stage in range(3):
            if stage:
                self.reductions.append(cell(REDUCTION, width << stage, built[-2]))
            cells = []
            for i in range(c.cells):
                skipped = stage and i == 0 and c.skip_reduction
                cells.append(cell(NORMAL, width << stage, built[-3] if skipped else built[-2]))
            self.stages.append(nn.ModuleList(cells))
            taps.append(built[-1])
        self.channels = tuple(channels for channels, _ in taps)
        self.strides = tuple(stride for _, stride in taps)
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(built[-1][0], c.num_classes)
        initialise_by_fan_out(self)
        nn.init.zeros_(self.head.bias)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last map of each size, finest first, (B, channels, about H / stride, about W / stride).

        Behind the first, which is the stem's, all are rectified, as every cell begins with it.
        """
        check_images(images, self.config.in_channels, least=3)
        before = x = self.stem(images)
        maps = [x]
        for i, cell in enumerate(self.stem_cells, 1):
            before, x = x, cell(x, before)
            if i < len(self.stem_cells):
                maps.append(F.relu(x))
        for s, stage in enumerate(self.stages):
            if s:
                reduced = self.reductions[s - 1](x, before)
                before, x = before if self.config.skip_reduction else x, reduced
            for cell in stage:  # type: ignore[attr-defined]
                before, x = x, cell(x, before)
            maps.append(F.relu(x))
        return maps

    def features(self, images: Tensor) -> Tensor:
        """The map of the last cell, rectified, (B, C, h, w)."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(images).mean((2, 3))))
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        groups: list[tuple[str, ...]] = [("stem.",), *((f"stem_cells.{i}.",) for i in range(self.config.stem_cells))]
        for s in range(3):
            groups += [(f"reductions.{s - 1}.",)] if s else []
            groups += [(f"stages.{s}.{i}.",) for i in range(self.config.cells)]
        return [*groups, ("head.",)]


VARIANTS = {
    "nasnet_nano": NASNetConfig(
        1, 192, 16, stem_cells=1, dropout=0.2, image_size=32, in_channels=1, num_classes=10
    ),
    "nasnetamobile": NASNetConfig(4, 1056, 32),
    "nasnetalarge": NASNetConfig(6, 4032, 96, skip_reduction=True, drop_path=0.3, image_size=331),
}


def timm_names(config: NASNetConfig) -> list[tuple[str, str]]:
    """The names of Cadene's port, which timm kept: six numbers for the cells of a stage, used or not."""
    cells = {f"stem_cells.{i}": f"cell_stem_{i}" for i in range(config.stem_cells)}
    cells |= {f"reductions.{r}": f"reduction_cell_{r}" for r in range(2)}
    cells |= {f"stages.{s}.{i}": f"cell_{6 * s + i}" for s in range(3) for i in range(config.cells)}
    parts = {"here.1": "conv_1x1.conv", "here.2": "conv_1x1.bn"}
    parts |= {"before.1": "conv_prev_1x1.conv", "before.2": "conv_prev_1x1.bn"}
    parts |= {"before.conv1": "path_1.conv", "before.conv2": "path_2.conv", "before.norm": "final_path_bn"}
    layers = {1: "separable_1.depthwise_conv2d", 2: "separable_1.pointwise_conv2d", 3: "bn_sep_1"}
    layers |= {5: "separable_2.depthwise_conv2d", 6: "separable_2.pointwise_conv2d", 7: "bn_sep_2"}
    parts |= {f"operations.{{}}.{a}": f"comb_iter_{{}}.{b}" for a, b in layers.items()}
    rows = [(f"{a}.{part}.{{}}", f"{b}.{name}.{{}}") for a, b in cells.items() for part, name in parts.items()]
    return [("stem.0.{}", "conv0.conv.{}"), ("stem.1.{}", "conv0.bn.{}"), ("head.{}", "last_linear.{}"), *rows]


LANDMARK = Landmark(
    model=NASNet,
    variants=VARIANTS,
    names={"timm": timm_names},
    preprocess={"": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": 0.911, "interpolation": "bicubic"}},
)
