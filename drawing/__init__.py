"""Images by class and seed: the generator that draws them, and the work of generate.py."""
