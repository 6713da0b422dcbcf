"""Weights on disk ↔ networks: one file per format, and one strict loader for all."""
