"""The second act of `make demo`: three transfers of its two backbones and of random weights, on embedded textures.

Command:  make demo
Hardware: 2 cores of an Intel Xeon, two runs at a time with one thread each, no data to download. Time: 6 minutes.
Expected: one table with one run per row. Both backbones are far above random weights in fine-tuning and Mask R-CNN, and
above them in UperNet, where seeds differ by as much.
"""

name = "demo"
demo = True
floor = True
tasks = [
    dict(recipe="configs/detection/mask_rcnn_textures.py", title="Mask R-CNN"),
    dict(recipe="configs/segmentation/upernet_textures.py", title="UperNet"),
    dict(recipe="configs/classification/finetune_textures.py", title="fine-tuning"),
]
