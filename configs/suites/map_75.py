"""Where does looking at the image pay? Objects that cover three quarters of a cluttered photograph.

Command:  make suite SUITE=configs/suites/map_75.py DATA="cifar10=path/to/cifar10 tiny_imagenet=path/to/tiny-imagenet"
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each. Not run yet.
Expected: results/headroom_parts.md. Rows as in map_50.py.
"""

_base_ = "map_50.py"
name = "map_75"
options = {"data.train.share": 0.75, "data.eval.share": 0.75, "train.amp": "bf16"}
