"""PPO: several passes over the same steps, none of which may change the policy by much (Schulman et al. 2017).

The networks are CleanRL's (arXiv:2111.08819), which has them from OpenAI Baselines: separate layers with tanh for
vectors, and for frames the convolutions of DQN (2015) that actor and critic share.
"""

from __future__ import annotations

from orchard.models import Landmark, Rule
from orchard.models.control.a2c import FRAMES, sb3_names
from orchard.models.control.actor_critic import ActorCritic, ActorCriticConfig, example


def cleanrl_names(config: ActorCriticConfig) -> list[Rule | tuple[str, str]]:
    """vwxyzjn/cleanrl: ppo.py, ppo_continuous_action.py and ppo_atari.py, whose Sequentials number activations too."""
    hidden, convolutions = len(config.hidden), len(config.channels)
    if config.shared:
        first = 2 * convolutions + (1 if convolutions else 0)
        names: list[Rule | tuple[str, str]] = [
            (f"observer.convolutions.{n}.{{}}", f"network.{2 * n}.{{}}") for n in range(convolutions)
        ]
        names += [(f"observer.hidden.{n}.{{}}", f"network.{first + 2 * n}.{{}}") for n in range(hidden)]
        return [*names, ("policy.{}", "actor.{}"), ("value.{}", "critic.{}")]
    actor = "actor_mean" if config.continuous else "actor"
    names = [(f"observer.hidden.{n}.{{}}", f"{actor}.{2 * n}.{{}}") for n in range(hidden)]
    names += [(f"critic_observer.hidden.{n}.{{}}", f"critic.{2 * n}.{{}}") for n in range(hidden)]
    deviation = Rule("log_std", ("actor_logstd",), lambda row: row.squeeze(0), lambda std: (std[None],))
    return [*names, ("policy.{}", f"{actor}.{2 * hidden}.{{}}"), ("value.{}", f"critic.{2 * hidden}.{{}}"), deviation]


VARIANTS = {
    "ppo_nano": ActorCriticConfig((4,), 2, (64, 64), activation="tanh", shared=False),
    "ppo_continuous": ActorCriticConfig((3,), 1, (64, 64), activation="tanh", shared=False, continuous=True),
    "ppo": ActorCriticConfig(FRAMES, 6, (512,), (32, 64, 64), (8, 4, 3), (4, 2, 1)),
}
LANDMARK = Landmark(
    model=ActorCritic,
    variants=VARIANTS,
    names={"cleanrl": cleanrl_names, "sb3": sb3_names},
    not_weights={"sb3": ("pi_features_extractor.*", "vf_features_extractor.*")},
    example=example,
)
