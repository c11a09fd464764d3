"""Suites of runs: methods x tasks x data sets x seeds from one file, made where missing, one at a time or on a cluster.

The way of a suite: `file` (what is asked for) -> `jobs` (every run, resolved) -> `proof` (which of them a record proves
done) -> `runner` (the others, in order, N at a time, through `launch`) -> `grid` (what there is).
"""
