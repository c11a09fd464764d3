"""Figures from records (`make figures`). One figure a file; `build` lists them, `style` is the look."""
