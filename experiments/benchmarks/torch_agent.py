"""PPO in PyTorch with gymnasium's CartPole: PyTorch's side of the benchmark of agents.

The environments are a `SyncVectorEnv` of gymnasium in this process; rollouts and updates are in
PyTorch. The hyperparameters are the defaults of `cartpole_ppo`. This module imports nothing from
jaxdl; `torch_side` uses it.
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
DISCOUNT, GAE_LAMBDA, CLIP, ENTROPY, VALUE, CLIP_NORM = 0.98, 0.8, 0.2, 0.0, 0.5, 0.5


def perceptron(outputs: int) -> nn.Sequential:
    """Multilayer perceptron [B, 4] -> [B, outputs] with two hidden layers of 64 units."""
    hidden = [nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]
    return nn.Sequential(*hidden, nn.Linear(64, outputs))


class Agent:
    """PPO agent: policy, value function, optimizer and environments."""

    def __init__(self, count: int):
        factories = [lambda: gymnasium.make("CartPole-v1")] * count
        self.environments = SyncVectorEnv(factories, autoreset_mode=AutoresetMode.SAME_STEP)
        self.policy, self.value = perceptron(2), perceptron(1)
        self.parameters = [*self.policy.parameters(), *self.value.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-3, fused=True)
        self.observation = torch.from_numpy(self.environments.reset(seed=0)[0])

    def update(self) -> None:
        """Collects a rollout and updates policy and value function on it."""
        steps: list[tuple[torch.Tensor, ...]] = []
        for _ in range(ROLLOUT):
            with torch.no_grad():
                policy = torch.distributions.Categorical(logits=self.policy(self.observation))
                action = policy.sample()
                log_prob, value = policy.log_prob(action), self.value(self.observation)[:, 0]
            following, reward, terminated, truncated, info = self.environments.step(action.numpy())
            last = torch.from_numpy(self._before_reset(following, info))
            rewards = torch.from_numpy(reward).float()
            ends = torch.from_numpy(terminated), torch.from_numpy(terminated | truncated)
            steps.append((self.observation, action, log_prob, value, rewards, last, *ends))
            self.observation = torch.from_numpy(following)
        x, action, log_prob, value, reward, last, terminated, ended = map(
            torch.stack, zip(*steps, strict=True)
        )
        with torch.no_grad():
            next_value = self.value(last)[..., 0] * ~terminated
        # Generalised advantage estimation, backwards in time.
        advantages, advantage = torch.zeros_like(value), torch.zeros(value.shape[1])
        for t in reversed(range(ROLLOUT)):
            td_error = reward[t] + DISCOUNT * next_value[t] - value[t]
            advantage = advantages[t] = td_error + DISCOUNT * GAE_LAMBDA * advantage * ~ended[t]
        flat = [a.flatten(0, 1) for a in (x, action, log_prob, advantages, advantages + value)]
        for _ in range(PASSES):
            for rows in torch.randperm(len(flat[0])).chunk(MINIBATCHES):
                self._minimise(*(a[rows] for a in flat))

    def _before_reset(self, following: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Returns the next observations, with those before a reset where an episode ended."""
        if "final_obs" not in info:
            return following
        last = following.copy()
        for n in np.flatnonzero(info["_final_obs"]):
            last[n] = info["final_obs"][n]
        return last

    def _minimise(
        self,
        x: torch.Tensor,
        action: torch.Tensor,
        log_prob: torch.Tensor,
        advantage: torch.Tensor,
        returns: torch.Tensor,
    ) -> None:
        """Makes one step of the optimizer on PPO's clipped loss."""
        policy = torch.distributions.Categorical(logits=self.policy(x))
        ratio = (policy.log_prob(action) - log_prob).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP) * advantage
        objective = torch.minimum(ratio * advantage, clipped).mean()
        value_loss = 0.5 * (self.value(x)[:, 0] - returns).square().mean()
        loss = VALUE * value_loss - objective - ENTROPY * policy.entropy().mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimizer.step()


def side(count: int, updates: int) -> tuple[int, Callable[[], float]]:
    """Builds the agent.

    Args:
      count: the number of environments.
      updates: the number of updates in a turn.

    Returns:
      The number of parameters, and a function that runs a turn and returns its seconds per update.
    """
    agent = Agent(count)

    def turn() -> float:
        began = time.perf_counter()
        for _ in range(updates):
            agent.update()
        return (time.perf_counter() - began) / updates

    return sum(p.numel() for p in agent.parameters), turn
