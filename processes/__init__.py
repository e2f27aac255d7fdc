"""Code for several processes that work together."""
