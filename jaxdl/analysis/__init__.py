"""Analysis of trained models: calibration, attribution, robustness, curvature, features."""
