"""Where does looking at the image pay? Objects that cover a quarter of a cluttered photograph.

Command:  make suite SUITE=configs/suites/map_25.py DATA="cifar10=path/to/cifar10 tiny_imagenet=path/to/tiny-imagenet"
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each. Time: half an hour a seed. Run with seed 0.
Expected: results/headroom_parts.md. Rows as in map_50.py.
"""

_base_ = "map_50.py"
name = "map_25"
options = {"data.train.share": 0.25, "data.eval.share": 0.25, "train.amp": "bf16"}
