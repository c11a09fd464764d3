"""MAE with random masks on the embedded textures; the smallest complete run.

Command:  make pretrain CONFIG=configs/pretrain/mae_vit-w128-d4_textures.py
Hardware: 1 core of an AMD EPYC, no data to download. Time: 2.1 processor minutes.
Expected: k-NN 59 ± 10, linear probe 86 ± 6 (5 seeds, frozen encoder, patch tokens averaged, chance 12.5 %).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/textures.py", "../_base_/mae.py"]
name = "mae_vit-w128-d4_textures"
method = "MAE"
optim = dict(theta=dict(lr=2e-3))
train = dict(outer_iterations=500, log_interval=50, picture_interval=250, checkpoint_interval=250)
