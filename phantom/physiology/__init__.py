"""How a phantom works inside: what its attention rests on, what carries the prompt, what a block
is needed for."""
