"""Compares figures of the networks, the training step and the metrics with reference figures, step by step."""
