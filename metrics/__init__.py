"""Measures of generated images: one metric, one file; each a pure function from features, logits or images."""
