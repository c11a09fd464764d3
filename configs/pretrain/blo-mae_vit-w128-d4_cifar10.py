"""BLO-MAE: the masking network learns on two levels instead of three.

Command:  make pretrain CONFIG=configs/pretrain/blo-mae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 18 processor minutes, 2.8 times that of the MAE config.
Expected: k-NN 45.6 ± 0.05, linear probe 51.5 ± 0.5 (3 seeds).

Lower level: θ by L_I(θ, φ) and, jointly, the head ω by L_II(ω; θ), which does not move the encoder. Upper level: φ by
L_III(θ*(φ), ω). With ω on the level of θ, its one step does not depend on φ, and the second term of the
response vanishes:

    v = ∂L_III/∂θ,   g_φ = −(∂²L_I/∂φ∂θ) v      (MLO-MAE: v = ∂L_III/∂θ − (∂²L_II/∂θ∂ω) ∂L_III/∂ω)

Source: the two-level ablation of MLO-MAE, Guo et al., TMLR 2025; that ω moves by its own loss alone is our reading.
"""

_base_ = "mlomae_vit-w128-d4_cifar10.py"
name = "blo-mae_vit-w128-d4_cifar10"
method = "BLO-MAE"
levels = dict(solver_options=dict(paths="direct"))
