"""Configurations: the schema of a pretraining, and strict reading of MMEngine config files."""
