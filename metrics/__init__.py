"""Measures of generated images. One file is one metric: a pure function of features, logits or images."""
