"""jaxdl: deep learning research on JAX and Flax as pure functions of one state."""
