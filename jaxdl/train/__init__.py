"""Training: the loop, its compiled steps, its feeds of batches, and what ends or resumes it."""
