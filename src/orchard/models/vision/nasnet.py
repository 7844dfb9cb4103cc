"""NASNet-A: learning transferable architectures for scalable image recognition (Zoph et al. 2017, arXiv:1707.07012).

Two cells were found by search on small pictures (figure 4), one that keeps the size and one that halves it; the network
for large pictures is many of both. A cell takes the two maps before it and adds five pairs of simple operations. An
"N @ P" network has N cells between reductions and P channels before the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.nasnet_cells import NORMAL, REDUCTION, Cell, Row, norm
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.checks import check_images
from orchard.nn.conv_norm import initialise_by_fan_out


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


class NASNet(PooledClassifier):
    """Pictures (B, C, H, W) of at least 3 pixels, normalised, to logits (B, num_classes)."""

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

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        groups: list[tuple[str, ...]] = [("stem.",), *((f"stem_cells.{i}.",) for i in range(self.config.stem_cells))]
        for s in range(3):
            groups += [(f"reductions.{s - 1}.",)] if s else []
            groups += [(f"stages.{s}.{i}.",) for i in range(self.config.cells)]
        return [*groups, ("head.",)]


VARIANTS = {
    "nasnet_nano": NASNetConfig(1, 192, 16, stem_cells=1, dropout=0.2, image_size=32, in_channels=1, num_classes=10),
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
