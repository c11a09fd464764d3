"""Applies to every test of this folder."""

from single_thread import one_thread

__all__ = ["one_thread"]
