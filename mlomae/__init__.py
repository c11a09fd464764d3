"""Masked autoencoders whose mask is learned from downstream feedback.

The way of the data: ``data`` -> ``masking`` -> ``models`` -> ``multilevel`` (with ``feedback``) -> ``engine``
-> ``export`` -> ``benchmarks`` (transfer tasks, records, tables).
"""

__version__ = "0.1.0"
