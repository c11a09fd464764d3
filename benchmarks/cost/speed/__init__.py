"""How fast a step is, beside peers in the same run."""
