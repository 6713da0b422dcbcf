"""The live page: a prompt typed, a run seen as it is computed, changed by a click, filmed."""
