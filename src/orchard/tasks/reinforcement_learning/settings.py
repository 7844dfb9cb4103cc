"""Settings of reinforcement learning."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class ReinforcementSettings(Strict):
    """How an agent acts, and what it learns from. Steps are the agent's, over all of its environments."""

    gamma: float = Field(0.99, ge=0, le=1, description="discount of a reward for each step that it is away")
    environments: int = Field(1, gt=0, description="environments in which the agent acts side by side")
    replay_capacity: int = Field(100_000, gt=0, description="steps that the replay buffer holds")
    learning_starts: int = Field(1_000, gt=0, description="steps before the first update, in which epsilon stays")
    train_every: int = Field(4, gt=0, description="steps between two updates")
    target_every: int = Field(1_000, gt=0, description="steps between two renewals of the target network; 1: no delay")
    n_step: int = Field(1, gt=0, description="rewards that a target adds up before it relies on the target network")
    next_value: Literal["greatest", "double"] = Field(
        "greatest", description="value of what comes next: the target network's greatest, or double DQN's"
    )
    priority_alpha: float = Field(
        0.0, ge=0, le=1, description="prioritised replay: power of a temporal difference; 0: all are drawn alike"
    )
    priority_beta: float = Field(
        0.4, ge=0, le=1, description="how far weights make up for priorities at first; in the end they do wholly"
    )
    error: Literal["huber", "squared"] = Field("huber", description="loss of a value; huber clips its gradient to ±1")
    epsilon_start: float = Field(1.0, ge=0, le=1, description="share of random actions at first")
    epsilon_end: float = Field(0.05, ge=0, le=1, description="share of random actions in the end")
    epsilon_steps: int = Field(10_000, gt=0, description="steps in which it falls, counted from the first update")
    step_seconds: float = Field(60.0, gt=0, description="time that the environments may take for a step of all")
    clip_rewards: bool = Field(False, description="clip rewards to [-1, 1] for learning; returns are not clipped")
    lives_end_episodes: bool = Field(False, description="whether nothing comes after a lost life, for learning")
    evaluate_every: int = Field(5_000, gt=0, description="steps of an epoch, after which the agent is evaluated")
    validation_episodes: int = Field(20, gt=0, description="greedy episodes of an evaluation")
    test_episodes: int = Field(100, gt=0, description="greedy episodes of the last evaluation")


class PolicySettings(Strict):
    """What an actor-critic learns from."""

    loss: Literal["ppo", "a2c", "a2c_released"] = Field(
        "ppo", description="loss of the policy; a2c_released: with the broadcasts of DeepChem's released code"
    )
    rollout_steps: int = Field(128, gt=0, description="steps in each environment before they are learned from")
    passes: int = Field(4, gt=0, description="passes over them")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="decay of generalised advantages; 1: the whole return")
    value_target: Literal["generalised", "discounted"] = Field(
        "generalised", description="what the critic learns: advantage + value, or the discounted return"
    )
    normalise_advantages: bool = Field(True, description="whether a batch's advantages have mean 0 and deviation 1")
    clip: float = Field(0.2, gt=0, description="PPO: how far from 1 the ratio of probabilities is rewarded")
    clip_values: bool = Field(False, description="PPO: hold values as near to what they were, too")
    value_weight: float = Field(0.5, ge=0, description="weight of the critic's mean squared error")
    entropy_weight: float = Field(0.01, ge=0, description="weight of the policy's entropy, which is to be large")
    evaluation: Literal["greedy", "sampled"] = Field(
        "greedy", description="how a trained agent plays: the likeliest action, or one drawn from the policy"
    )


class Settings(TrainSettings):
    """What training an agent may be told beside what all trainings are."""

    reinforcement: ReinforcementSettings = Field(default_factory=ReinforcementSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)


class Options(Strict):
    """How an agent is watched."""

    episodes: int = Field(1, ge=1, description="episodes to play")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed of the episodes")
    out: Path | None = Field(None, description="film of the first episode, a .gif")
