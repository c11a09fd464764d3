"""Transfers to every task: the backbones pretrained on the embedded textures in work_dirs, and random weights.

Command:  make bench-cls, make bench-seg, make bench-det, make bench TASK=linear_segmentation (one task each)
Hardware: 2 cores of an AMD EPYC, two runs at a time with one thread each, no data to download. Time: about 6 minutes
          per backbone of width 128 and depth 4, for all tasks.
Expected: one table with one run per row: it shows that the transfers work, not which method is better.
"""

name = "bench"
demo = True
floor = True
