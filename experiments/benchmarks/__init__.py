"""Benchmarks: each is one command that prints its figures and the hardware they are of."""
