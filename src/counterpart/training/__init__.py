"""The training loop, and the steps, optimisers and checkpoints that it needs."""
