"""Trackers: TensorBoard, Weights & Biases, MLflow, and trackers of a user's own.

`tracker` has the protocol. `run.logger` gives each event of a run to `group`, which guards the run
from its trackers. TensorBoard writes in the process of the run. Every other tracker has a process
of its own: `process` is the run's side of it, and `child` the other.
"""
