"""A training run: its folder, batches, gradients, alarms and figures."""
