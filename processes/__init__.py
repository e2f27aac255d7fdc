"""Several processes that work together."""
