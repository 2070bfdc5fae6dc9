"""Analysis of trained models: image quality, linear probe, clustering."""
