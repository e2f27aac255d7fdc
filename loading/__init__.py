"""Sets of labelled images, and threads that read them ahead of the training."""
