"""Images of any source measured against real ones."""
