"""Techniques from papers, built of probes; each is called without its script."""
