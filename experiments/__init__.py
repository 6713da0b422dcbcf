"""One question each: scripts to be run from the shell."""
