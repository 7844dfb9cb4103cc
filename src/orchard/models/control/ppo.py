"""PPO: several passes over the same steps, none of which may change the policy by much (Schulman et al. 2017).

The networks are CleanRL's (arXiv:2111.08819), which has them from OpenAI Baselines: separate layers with tanh for
vectors, and for frames the convolutions of DQN (2015) that actor and critic share.
"""

from __future__ import annotations

from orchard.models import Landmark
from orchard.models.control.actor_critic import FRAMES, NAMES, NOT_WEIGHTS, ActorCritic, ActorCriticConfig, example


class PPO(ActorCritic):
    """Observations (B, *observation) → `Decision`, as `ActorCritic` has it."""


VARIANTS = {
    "ppo_nano": ActorCriticConfig((4,), 2, (64, 64), activation="tanh", shared=False),
    "ppo_continuous": ActorCriticConfig((3,), 1, (64, 64), activation="tanh", shared=False, continuous=True),
    "ppo": ActorCriticConfig(FRAMES, 6, (512,), (32, 64, 64), (8, 4, 3), (4, 2, 1)),
}
LANDMARK = Landmark(model=PPO, variants=VARIANTS, names=NAMES, not_weights=NOT_WEIGHTS, example=example)
