"""What an experiment will cost, told before the work: its calls counted, timed and put together."""
