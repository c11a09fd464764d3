"""Engine: MMEngine loop, hooks, checkpoints, exact resume."""
