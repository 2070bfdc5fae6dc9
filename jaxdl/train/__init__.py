"""Training: the loop, the compiled step, the feeds of batches, evaluation, and resuming.

`loop.train` is the entry point. It drives a `trainer.Trainer`, which owns what one run has open.
`step_spec` holds the constants of a compiled step and `train_step` compiles it. `feed` supplies the
batches and `events` the schedule. `resume` and `rewind` decide which checkpoint a run continues
from, and `summary` writes the results.
"""
