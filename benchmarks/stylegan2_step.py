"""A training step of StyleGAN2 beside the same step by plain eager parts.

The other side is a stand-in, written here after the way the published PyTorch code goes about it without its compiled
operations: every sample has convolution weights of its own, computed by one grouped convolution, and filters run over
images in which zeros are put between the pixels, a channel at a time. That code itself is not run. Both sides have the
same weights, and are shown to give the same images and scores before they are timed turn by turn. A step is the
discriminator's and the generator's loss, a 16th of R1's and a 4th of the path length's, each with its gradients. Timed
is one thread's processor time, of which work beside it takes less than of the clock's.

    python benchmarks/stylegan2_step.py [--variant stylegan2_nano] [--batch 16] [--rounds 5]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.batches import ImageBatch
from orchard.models import create_model
from orchard.nn.filtered_resampling import TAPS, Doubling, LowPass, kernel_of
from orchard.nn.modulated_conv import EPSILON, ModulatedConv2d
from orchard.tasks.unconditional_image_generation.adversarial import Adversarial
from orchard.tasks.unconditional_image_generation.learner import GenerationLearner
from orchard.tasks.unconditional_image_generation.settings import OBJECTIVES, AdversarialSettings
from orchard.training.phases import Phase


def filtered(x: Tensor, kernel: Tensor, padding: tuple[int, int], up: int = 1, down: int = 1) -> Tensor:
    """Zeros between the pixels, padding, the filter over each channel as an image of its own, every `down`-th pixel."""
    batch, channels, height, width = x.shape
    wide = F.pad(x.reshape(-1, 1, height, 1, width, 1), [0, up - 1, 0, 0, 0, up - 1])
    padded = F.pad(wide.reshape(-1, 1, height * up, width * up), [*padding, *padding])
    out = F.conv2d(padded, kernel)
    return out.reshape(batch, channels, *out.shape[2:])[:, :, ::down, ::down]


def low_pass(self: LowPass, x: Tensor) -> Tensor:
    return filtered(x, self.kernel, (self.padding[0], self.padding[1]), down=self.stride)


def doubling(self: Doubling, x: Tensor) -> Tensor:
    return filtered(x, self.kernel, (2, 1), up=2)


def modulated(self: ModulatedConv2d, x: Tensor, styles: Tensor) -> Tensor:
    batch, inputs, height, width = x.shape
    weight = self.gain * self.weight * self.style(styles)[:, None, :, None, None]  # (B, outputs, inputs, k, k)
    if self.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + EPSILON)
    together = x.reshape(1, batch * inputs, height, width)
    if self.blur is None:
        out = F.conv2d(together, weight.flatten(0, 1), padding=self.padding, groups=batch)
    else:
        out = F.conv_transpose2d(together, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
    out = out.reshape(batch, -1, *out.shape[2:])
    return out if self.blur is None else filtered(out, kernel_of(TAPS, 4.0)[None, None], (1, 1))


def stand_in(pair: Any) -> Any:
    """A copy with the same weights and plain parts."""
    plain = copy.deepcopy(pair)
    for module in plain.modules():
        for kind, forward in ((LowPass, low_pass), (Doubling, doubling), (ModulatedConv2d, modulated)):
            if isinstance(module, kind):
                module.forward = MethodType(forward, module)  # type: ignore[method-assign]
    return plain


def seconds(learner: GenerationLearner, phase: Phase, batch: ImageBatch) -> float:
    """Processor time of one phase's loss and gradients."""
    torch.manual_seed(0)
    for name, parameter in learner.named_parameters():
        parameter.requires_grad_(name.startswith(phase.parameters))
    learns = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    begun = time.process_time()
    torch.autograd.grad(phase.loss(learner, batch, 0)[0], learns, allow_unused=True)
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="stylegan2_nano")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours: Any = create_model(asked.variant).eval()
    theirs, c = stand_in(ours), ours.config
    images = torch.rand(asked.batch, c.in_channels, c.image_size, c.image_size) * 2 - 1
    with torch.no_grad():
        noise = ours.sample_noise(asked.batch)
        apart = [
            (ours(noise) - theirs(noise)).abs().max(),
            (ours.discriminator(images) - theirs.discriminator(images)).abs().max(),
        ]
    print(f"largest difference: images {apart[0]:.1e}, scores {apart[1]:.1e}")
    objective = Adversarial(AdversarialSettings(**OBJECTIVES["stylegan2"].values))
    shape = (c.in_channels, c.image_size, c.image_size)
    learners = [GenerationLearner(pair, shape, objective.memory).train() for pair in (ours, theirs)]
    batch = ImageBatch(images, torch.zeros(asked.batch, dtype=torch.int64), torch.arange(asked.batch))
    steps = [0.0, 0.0]
    for phase in objective.phases:
        rounds = [[seconds(learner, phase, batch) for learner in learners] for _ in range(asked.rounds + 1)][1:]
        medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
        ratio = statistics.median(theirs / ours for ours, theirs in rounds)
        print(f"{phase.name}: {1e3 * medians[0]:.0f} ms, stand-in {1e3 * medians[1]:.0f} ms, ratio {ratio:.2f}")
        steps = [whole + one / phase.every for whole, one in zip(steps, medians, strict=True)]
    print(f"a step: {1e3 * steps[0]:.0f} ms, stand-in {1e3 * steps[1]:.0f} ms, ratio {steps[1] / steps[0]:.2f}")


if __name__ == "__main__":
    main()
