"""Reinforcement learning: environments, returns and agents, all of them pure functions."""
