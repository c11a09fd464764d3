"""Masking strategies: the modules of this folder register themselves."""
