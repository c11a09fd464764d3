"""Hypergradient solvers: the modules of this folder register themselves."""
