"""The command line: its options for each command, its recipe or run, and its refusals."""
