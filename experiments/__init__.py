"""Experiments: one file trains one model. Copy one to write the next."""
