"""MLO-MAE with the paper's linear feedback on the embedded textures; differs from the MAE config in the mask alone.

Command:  make pretrain CONFIG=configs/pretrain/mlomae_vit-w128-d4_textures.py
Hardware: 1 core of an AMD EPYC, no data to download. Time: 7 processor minutes.
Expected: k-NN 60 ± 7, linear probe 87 ± 4 (2 seeds, frozen encoder, patch tokens averaged, chance 12.5 %).
Not better than a mask network frozen at random; 3.3 times the processor time of MAE (results/README.md).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/textures.py", "../_base_/mlomae.py"]
name = "mlomae_vit-w128-d4_textures"
method = "MLO-MAE"
optim = dict(theta=dict(lr=2e-3), omega=dict(lr=3e-3), phi=dict(lr=5e-4))
train = dict(outer_iterations=500, log_interval=50, picture_interval=250, checkpoint_interval=250)
