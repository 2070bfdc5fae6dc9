"""Tasks: a model, a loss and an optimizer as four pure functions of one state."""
