"""Neural network layers, and the convolutions and matrix products that they compute with."""
