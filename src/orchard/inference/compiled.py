"""An unchanged model compiled ahead of time for one batch shape, and kept as one file.

The graph is exported under autocast, its weights are frozen in (norms folded into convolutions in float32, then cast
and packed the way the processor's matrix unit reads them), and TorchInductor compiles it into a file that a second
process only opens.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from orchard.cache import keep, scratch


class Cast(nn.Module):
    """The model in the precision asked for, from float32 to float32."""

    def __init__(self, model: nn.Module, precision: str):
        super().__init__()
        self.model = model
        self.bf16 = precision == "bf16"

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.model(images)
        return logits.float()


def compiler() -> str | None:
    """The C++ compiler that TorchInductor would call, if there is one."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))


def compile_model(model: nn.Module, example: Tensor, precision: str, path: Path) -> None:
    """Write the model compiled for the shape of `example` as `path`. Raises RuntimeError or OSError if that fails."""
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.utils import fresh_cache

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a GPU that nobody asked for
    with scratch(path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.no_grad(), fresh_cache(dir=str(folder)):
            program = torch.export.export(Cast(model, precision).eval(), (example,))
            package = aoti_compile_and_package(
                program, package_path=f"{folder}/model.pt2", inductor_configs={"freezing": True}
            )
        keep(Path(package), path)


def open_compiled(path: Path) -> Callable[[Tensor], Tensor]:
    """What runs the compiled model of a file. Raises RuntimeError or OSError for one that is damaged."""
    from torch._inductor import aoti_load_package

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    run: Callable[[Tensor], Tensor] = aoti_load_package(str(path))
    return lambda images: run(images.contiguous())
