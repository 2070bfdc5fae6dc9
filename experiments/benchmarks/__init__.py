"""Benchmarks: each is one command that prints its figures and the hardware that they are of."""
