"""Packing a data set into one file of ready images: the sources, the files, and the work."""
