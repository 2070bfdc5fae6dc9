"""Reinforcement learning: environments, returns and agents as pure functions."""
