"""Measures images of any source and compares them with real images."""
