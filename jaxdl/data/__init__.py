"""Arrays in, batches out: data sets as in-memory arrays, from TFDS folders or the installation."""
