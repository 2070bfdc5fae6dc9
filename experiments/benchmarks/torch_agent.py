"""PyTorch's side of the benchmark of agents: PPO with gymnasium's CartPole, as one writes it.

Environments side by side are gymnasium's own vector of them, which lives in this process; what is
lived and learnt from is PyTorch's. The flags are those of `cartpole_ppo`. It imports nothing of
jaxdl, as `torch_side`, whose part it is.
"""

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

ROLLOUT, PASSES, MINIBATCHES = 32, 20, 1
DISCOUNT, TRACE, CLIP, ENTROPY, VALUE, CLIP_NORM = 0.98, 0.8, 0.2, 0.0, 0.5, 0.5


def perceptron(outputs: int) -> nn.Sequential:
    """[B, 4] -> [B, outputs], with two hidden layers of 64."""
    hidden = [nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]
    return nn.Sequential(*hidden, nn.Linear(64, outputs))


class Agent:
    """Policy, values, and the environments that it stands in."""

    def __init__(self, count: int):
        makers = [lambda: gymnasium.make("CartPole-v1")] * count
        self.environments = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        self.policy, self.value = perceptron(2), perceptron(1)
        self.parameters = [*self.policy.parameters(), *self.value.parameters()]
        self.rule = torch.optim.Adam(self.parameters, lr=1e-3, fused=True)
        self.now = torch.from_numpy(self.environments.reset(seed=0)[0])

    def update(self) -> None:
        """Lives for a rollout, and learns from it."""
        lived: list[tuple[torch.Tensor, ...]] = []
        for _ in range(ROLLOUT):
            with torch.no_grad():
                choice = torch.distributions.Categorical(logits=self.policy(self.now))
                action = choice.sample()
                log, value = choice.log_prob(action), self.value(self.now)[:, 0]
            following, reward, terminated, truncated, more = self.environments.step(action.numpy())
            last = torch.from_numpy(self._before_reset(following, more))
            rewards = torch.from_numpy(reward).float()
            ends = torch.from_numpy(terminated), torch.from_numpy(terminated | truncated)
            lived.append((self.now, action, log, value, rewards, last, *ends))
            self.now = torch.from_numpy(following)
        x, action, log, value, reward, last, terminated, ended = map(
            torch.stack, zip(*lived, strict=True)
        )
        with torch.no_grad():
            following = self.value(last)[..., 0] * ~terminated
        gain, ahead = torch.zeros_like(value), torch.zeros(value.shape[1])
        for t in reversed(range(ROLLOUT)):
            surprise = reward[t] + DISCOUNT * following[t] - value[t]
            ahead = gain[t] = surprise + DISCOUNT * TRACE * ahead * ~ended[t]
        flat = [a.flatten(0, 1) for a in (x, action, log, gain, gain + value)]
        for _ in range(PASSES):
            for rows in torch.randperm(len(flat[0])).chunk(MINIBATCHES):
                self._learn(*(a[rows] for a in flat))

    def _before_reset(self, following: np.ndarray, more: dict[str, Any]) -> np.ndarray:
        if "final_obs" not in more:
            return following
        last = following.copy()
        for n in np.flatnonzero(more["_final_obs"]):
            last[n] = more["final_obs"][n]
        return last

    def _learn(
        self,
        x: torch.Tensor,
        action: torch.Tensor,
        log: torch.Tensor,
        gain: torch.Tensor,
        wanted: torch.Tensor,
    ) -> None:
        choice = torch.distributions.Categorical(logits=self.policy(x))
        ratio = (choice.log_prob(action) - log).exp()
        gain = (gain - gain.mean()) / (gain.std() + 1e-8)
        better = torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
        error = 0.5 * (self.value(x)[:, 0] - wanted).square().mean()
        loss = VALUE * error - better - ENTROPY * choice.entropy().mean()
        self.rule.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.rule.step()


def side(count: int, updates: int) -> tuple[int, Callable[[], float]]:
    """The number of parameters, and a turn that takes seconds an update."""
    agent = Agent(count)

    def turn() -> float:
        began = time.perf_counter()
        for _ in range(updates):
            agent.update()
        return (time.perf_counter() - began) / updates

    return sum(p.numel() for p in agent.parameters), turn
