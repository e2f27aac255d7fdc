"""Files from strangers, read safely."""
