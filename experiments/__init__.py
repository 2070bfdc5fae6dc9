"""Experiments: one file, one run. Copy one to write the next."""
