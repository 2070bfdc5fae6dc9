"""Trained models outside of training: opened from a run folder, asked, and taken elsewhere."""
