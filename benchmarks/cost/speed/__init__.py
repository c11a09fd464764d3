"""The speed of a step, compared with others' implementations in the same run."""
