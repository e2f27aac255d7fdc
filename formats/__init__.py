"""Safe readers of files that a stranger may have written: images, published data sets, published weights."""
