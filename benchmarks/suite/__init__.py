"""Suites of runs: methods x tasks x data sets x seeds from one file, run where missing, here or on a cluster.

The path of a suite: `file` (its entries) -> `jobs` (every run, resolved; `backbones`: what is transferred) ->
`completed` (the runs that are on record) -> `runner` (the others, in order, through `launch`) -> `status`.
"""
