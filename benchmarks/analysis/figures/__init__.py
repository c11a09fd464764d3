"""Figures from records (`make figures`). One file per figure; `__main__` lists them."""
