"""PPO's steps of the agent a second: ours through the training loop, and a plain loop as CleanRL's ppo.py writes it.

Both train the same network on CartPole with the same environments, rollouts, minibatches and passes, and count only
what they do between the first step and the last: no evaluation, no checkpoint. They take turns in one thread, and are
timed by the processor's time, which other work on the machine leaves nearly as it is. The plain loop has what CleanRL's
has around a step: gymnasium's SyncVectorEnv with the counting of returns, torch.distributions that check their
arguments, and a global gradient norm.

    python benchmarks/rollouts.py
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from orchard.app.train import resolve_training
from orchard.inference.hardware import hardware
from orchard.training.loop import Trainer
from orchard.training.progress import Progress
from orchard.training.run import RunFolder

ROLLOUTS, ROUNDS = 1, 5  # rollouts in a turn, and turns


class Plain:
    """The loop of ppo.py around a network with `policy` and `value` towers."""

    def __init__(self, network: Any, settings: Any):
        self.s, self.p = settings, settings.policy
        self.actor = _tower(network.observer, network.policy)
        self.critic = _tower(network.critic_observer, network.value)
        parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.parameters, self.optimizer = parameters, torch.optim.Adam(parameters, lr=settings.optimizer.lr, eps=1e-5)

        def make() -> Any:
            return gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))

        self.envs = gymnasium.vector.SyncVectorEnv([make for _ in range(settings.reinforcement.environments)])
        observations, _ = self.envs.reset(seed=0)
        self.seen, self.done = torch.Tensor(observations), torch.zeros(len(observations))

    def rollout(self) -> None:
        steps, count = self.p.rollout_steps, len(self.done)
        seen = torch.zeros(steps, count, 4)
        actions, log_probabilities, rewards, dones, values = (torch.zeros(steps, count) for _ in range(5))
        for step in range(steps):
            seen[step], dones[step] = self.seen, self.done
            with torch.no_grad():
                chosen: Any = Categorical(logits=self.actor(self.seen))
                action = chosen.sample()
                log_probabilities[step], values[step] = chosen.log_prob(action), self.critic(self.seen).flatten()
            actions[step] = action
            observations, reward, terminated, truncated, _ = self.envs.step(action.numpy())
            rewards[step] = torch.tensor(reward).view(-1)
            self.seen, self.done = torch.Tensor(observations), torch.Tensor(np.logical_or(terminated, truncated))
        with torch.no_grad():
            after, advantages, last = self.critic(self.seen).reshape(1, -1), torch.zeros_like(rewards), 0.0
            for t in reversed(range(steps)):
                going = 1.0 - (self.done if t == steps - 1 else dones[t + 1])
                next_value = after if t == steps - 1 else values[t + 1]
                error = rewards[t] + self.s.reinforcement.gamma * next_value * going - values[t]
                last = error + self.s.reinforcement.gamma * self.p.gae_lambda * going * last
                advantages[t] = last
        batch = (seen.reshape(-1, 4), actions.long(), log_probabilities, advantages, advantages + values)
        self._learn(*(one if one.ndim == 2 and one.shape[1] == 4 else one.reshape(-1) for one in batch))

    def _learn(self, seen: Tensor, actions: Tensor, before: Tensor, advantages: Tensor, returns: Tensor) -> None:
        order, size = np.arange(len(actions)), self.s.batch_size
        for _ in range(self.p.passes):
            np.random.shuffle(order)
            for first in range(0, len(order), size):
                few = order[first : first + size]
                chosen: Any = Categorical(logits=self.actor(seen[few]))
                log_ratio = chosen.log_prob(actions[few]) - before[few]
                ratio = log_ratio.exp()
                with torch.no_grad():
                    ((ratio - 1) - log_ratio).mean().item()
                    ((ratio - 1.0).abs() > self.p.clip).float().mean().item()
                scaled = (advantages[few] - advantages[few].mean()) / (advantages[few].std() + 1e-8)
                clipped = torch.clamp(ratio, 1 - self.p.clip, 1 + self.p.clip)
                policy = torch.max(-scaled * ratio, -scaled * clipped).mean()
                value = 0.5 * ((self.critic(seen[few]).view(-1) - returns[few]) ** 2).mean()
                loss = policy - self.p.entropy_weight * chosen.entropy().mean() + value * 0.5
                self.optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(self.parameters, self.s.clip_norm)
                self.optimizer.step()


def _tower(observer: Any, head: nn.Module) -> nn.Sequential:
    layers = [part for layer in observer.hidden for part in (copy.deepcopy(layer), nn.Tanh())]
    return nn.Sequential(*layers, copy.deepcopy(head))


def main() -> None:
    torch.set_num_threads(1)
    resolved, task = resolve_training("ppo_nano", "gym:CartPole-v1", {})
    job: Any = task.load(str(task.job))(resolved, torch.device("cpu"))
    settings, feed = job.settings, job.agent
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(job, RunFolder(Path(folder)), print)
        progress = Progress(settings.batch_size, job.unit, (), quiet=True)
        plain, batches = Plain(feed.network, settings), feed.batches(0)

        def ours() -> None:
            for _ in range(ROLLOUTS * feed.per_rollout):
                trainer.step(batches)
                progress.advance(trainer.state.step, trainer._mean_loss)

        def theirs() -> None:
            for _ in range(ROLLOUTS):
                plain.rollout()

        speeds: dict[str, list[float]] = {"ours": [], "plain": []}
        for number in range(ROUNDS + 1):
            for name, run in (("ours", ours), ("plain", theirs)):
                began = time.process_time()
                run()
                if number:  # the first round warms up
                    speeds[name].append(ROLLOUTS * feed.size / (time.process_time() - began))
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    ratios = [one / other for one, other in zip(speeds["ours"], speeds["plain"], strict=True)]
    print(f"{hardware()['cpu']}, 1 thread; median of {ROUNDS} turns of {ROLLOUTS * feed.size:,} steps")
    for name, speed in medians.items():
        print(f"{name:6} {speed:8,.0f} steps a second of processor time")
    print(f"ratio  {statistics.median(ratios):8.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
