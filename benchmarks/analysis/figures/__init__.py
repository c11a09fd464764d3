"""Figures from records (`make figures`). One figure a file; `__main__` lists them."""
