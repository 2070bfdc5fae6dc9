"""Models as pure Linen modules, called with (x, train=...) and computing in `dtype`."""
