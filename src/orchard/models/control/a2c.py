"""A2C: an actor and its critic, learning from what they have just done (Mnih et al. 2016, arXiv:1602.01783).

A2C is A3C whose workers act in step and learn together. The networks are OpenAI Baselines' and Stable-Baselines3's:
separate layers for vectors, the convolutions of DQN (2015) for frames; and that of DeepChem's tutorial on Pong, small,
with a GRU in place of a stack of frames.
"""

from __future__ import annotations

from orchard.models import Landmark
from orchard.models.control.actor_critic import ActorCritic, ActorCriticConfig, example

FRAMES = (4, 84, 84)  # the last four, in grey


def sb3_names(config: ActorCriticConfig) -> list[tuple[str, str]]:
    """Stable-Baselines3, policy.pth of ActorCriticPolicy; the extractor of frames stands there three times."""
    if config.channels:
        parts = [(f"convolutions.{n}", f"cnn.{2 * n}") for n in range(len(config.channels))]
        parts += [(f"hidden.{n}", f"linear.{2 * n}") for n in range(len(config.hidden))]
        names = [(f"observer.{ours}.{{}}", f"features_extractor.{theirs}.{{}}") for ours, theirs in parts]
    else:
        names = [
            (f"{ours}.hidden.{n}.{{}}", f"mlp_extractor.{theirs}.{2 * n}.{{}}")
            for ours, theirs in (("observer", "policy_net"), ("critic_observer", "value_net"))
            for n in range(len(config.hidden))
        ]
    return [*names, ("policy.{}", "action_net.{}"), ("value.{}", "value_net.{}"), ("log_std", "log_std")]


def deepchem_names(config: ActorCriticConfig) -> list[tuple[str, str]]:
    """deepchem/deepchem, the policy of the tutorial "Using Reinforcement Learning to Play Pong"."""
    names = [(f"observer.convolutions.{n}.{{}}", f"conv{n + 1}.{{}}") for n in range(len(config.channels))]
    names += [(f"observer.hidden.{n}.{{}}", f"fc{n + 1}.{{}}") for n in range(len(config.hidden))]
    return [*names, ("memory.{}", "gru.{}_l0"), ("policy.{}", "action_prob.{}"), ("value.{}", "value.{}")]


VARIANTS = {
    "a2c_nano": ActorCriticConfig((4,), 2, (64, 64), activation="tanh", shared=False),
    "a2c": ActorCriticConfig(FRAMES, 6, (512,), (32, 64, 64), (8, 4, 3), (4, 2, 1)),
    "a2c_pong": ActorCriticConfig(
        (1, 80, 80), 6, (256,), (16, 32), (8, 4), (4, 2), memory=16, initialisation="fan_in", view="pong"
    ),
}
LANDMARK = Landmark(
    model=ActorCritic,
    variants=VARIANTS,
    names={"sb3": sb3_names, "deepchem": deepchem_names},
    not_weights={"sb3": ("pi_features_extractor.*", "vf_features_extractor.*")},
    example=example,
)
