"""Layers, and the convolutions and products that they are made of."""
