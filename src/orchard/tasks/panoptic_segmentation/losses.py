"""The losses of masks (DETR, arXiv:2005.12872, section 4.4; V-Net, arXiv:1606.04797; focal, arXiv:1708.02002)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


def mask_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Focal loss (a mean over pixels) and dice loss of each of N masks, (N,) each.

    logits (N, h, w) are brought to the size of masks (N, H, W) bool.
    """
    logits = F.interpolate(logits[:, None].float(), masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    truth = masks.float()
    focal = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2.0).mean((1, 2))
    said = logits.sigmoid()
    shared, sizes = (said * truth).sum((1, 2)), said.sum((1, 2)) + truth.sum((1, 2))
    return focal, 1 - (2 * shared + 1) / (sizes + 1)


def mean_over(losses: Tensor, count: int) -> Tensor:
    """The sum of losses (N,) over the number of segments, of which at least 1 is taken."""
    return losses.sum() / torch.as_tensor(count, device=losses.device).clamp(min=1)
