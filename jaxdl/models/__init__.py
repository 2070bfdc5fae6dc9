"""Models as pure Linen definitions: called with (x, train=...), computing in `dtype`."""
