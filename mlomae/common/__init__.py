"""Shared by all packages: errors, atomic writes, registries, keyed random numbers, checkpoints."""
