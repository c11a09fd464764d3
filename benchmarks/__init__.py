"""Transfer benchmarks, run records and comparison tables."""
