"""What everything else stands on: errors, files written whole, registries, keyed random numbers, checkpoints."""
