"""Pretraining: from a configuration to a checkpoint and a record."""
