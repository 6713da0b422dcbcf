"""The figure of test_X or text_X is figures/X.py: arrays in, a Figure out."""
