"""The oracle: known object patches weigh five times as much in the loss. Not a method: it measures the headroom.

Command:  make pretrain CONFIG=configs/pretrain/oracle_vit-w128-d4_textures.py
Hardware: 1 core of an AMD EPYC, no data to download. Time: 2 processor minutes.
Expected: k-NN 80.1 ± 1.5, linear probe 91.6 ± 1.1 (5 seeds, frozen encoder, patch tokens averaged, chance 12.5 %).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/textures.py"]
name = "oracle_vit-w128-d4_textures"
method = "oracle, weight 5"
mask = dict(type="oracle", ratio=0.75, bias=0.0, weight=5.0)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=2e-3))
train = dict(outer_iterations=500, log_interval=50, picture_interval=250, checkpoint_interval=250)
