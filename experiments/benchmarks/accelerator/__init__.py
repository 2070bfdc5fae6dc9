"""Measurement of an accelerator in a given number of minutes; see `__main__`."""
