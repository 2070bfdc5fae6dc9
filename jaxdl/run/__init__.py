"""The folder of a run: its log, its checkpoints, and how a run is opened again."""
