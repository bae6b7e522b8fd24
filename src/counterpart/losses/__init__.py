"""Pure functions of outputs and targets."""
