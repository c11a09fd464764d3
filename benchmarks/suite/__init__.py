"""Suites of runs: methods x tasks x data sets x seeds from one file, run where missing, here or on a cluster.

The way of a suite: `file` (what is asked for) -> `jobs` (every run, resolved; `backbones`: what transfers begin with)
-> `completed` (which of them are on record) -> `runner` (the others, in order, through `launch`) -> `status`.
"""
