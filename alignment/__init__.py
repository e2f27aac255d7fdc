"""Checks the networks, the training step and the metrics against reference figures, step by step."""
