"""From maps or parts to the budget of each pixel."""
