"""Data sets: arrays in memory, prepared TFDS folders, image folders, and their batches."""
