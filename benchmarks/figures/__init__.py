"""Figures from records: `python -m benchmarks.figures`. One figure a file; `build` lists them, `style` is the look."""
