"""A2C: an actor and its critic, learning from what they have just done (Mnih et al. 2016, arXiv:1602.01783).

A2C is A3C whose workers act in step and learn together. The networks are OpenAI Baselines' and Stable-Baselines3's:
separate layers for vectors, the convolutions of DQN (2015) for frames; and that of DeepChem's tutorial on Pong, small,
with a GRU in place of a stack of frames.
"""

from __future__ import annotations

from orchard.models import Landmark
from orchard.models.control.actor_critic import FRAMES, NAMES, NOT_WEIGHTS, ActorCritic, ActorCriticConfig, example


class A2C(ActorCritic):
    """Observations (B, *observation) → `Decision`, as `ActorCritic` has it."""


def deepchem_names(config: ActorCriticConfig) -> list[tuple[str, str]]:
    """deepchem/deepchem, the policy of the tutorial "Using Reinforcement Learning to Play Pong"."""
    names = [(f"observer.convolutions.{n}.{{}}", f"conv{n + 1}.{{}}") for n in range(len(config.channels))]
    names += [(f"observer.hidden.{n}.{{}}", f"fc{n + 1}.{{}}") for n in range(len(config.hidden))]
    return [*names, ("memory.{}", "gru.{}_l0"), ("policy.{}", "action_prob.{}"), ("value.{}", "value.{}")]


VARIANTS = {
    "a2c_nano": ActorCriticConfig((4,), 2, (64, 64), activation="tanh", shared=False),
    "a2c": ActorCriticConfig(FRAMES, 6, (512,), (32, 64, 64), (8, 4, 3), (4, 2, 1)),
    "a2c_pong": ActorCriticConfig(
        (1, 80, 80), 6, (256,), (16, 32), (8, 4), (4, 2), memory=16, start="fan_in", view="pong"
    ),
}
LANDMARK = Landmark(
    model=A2C, variants=VARIANTS, names={**NAMES, "deepchem": deepchem_names}, not_weights=NOT_WEIGHTS, example=example
)
