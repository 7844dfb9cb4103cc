"""What is trained: the modules that learn, and what is kept beside them."""

from __future__ import annotations

from torch import nn


class Learner(nn.Module):
    """A model together with what its training needs: a discriminator, a target network, a history.

    The loop trains a plain model as it is; a task whose training needs more wraps it in a `Learner`. All parameters and
    buffers are in the checkpoint. The average of the weights (the setting `ema`) is kept by the loop.
    """

    def after_step(self, step: int) -> None:
        """Called after the `step`-th step (from 1): the place to update a target network."""

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [("",)]
