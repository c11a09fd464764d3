"""What pretraining on the embedded textures left in work_dirs, and random weights, transferred to every task.

Command:  make bench-cls, make bench-seg, make bench-det (one task each); `make demo` ends with it
Hardware: 2 cores of an AMD EPYC, two runs at a time with one thread each, no data to download. Time: about 5 minutes a
          backbone of width 128 and depth 4 for all tasks.
Expected: one table; one run a row, which shows that the transfers work, not which method is better.
"""

name = "bench"
demo = True
floor = True
