"""The method: a mask learned from downstream feedback, with changes to the paper's settings that prevent collapse.

Changes: the mask network is a shared MLP on detached tokens (the paper's MLP on flattened tokens saturates or becomes
a position prior), logits are standardised per image, sampling is noisy top-k (the paper's is deterministic),
and the head takes five cheap steps on the same features (with one it stayed at chance in prototypes). As in the paper:
two lower steps and one mask step per outer iteration, the linear head, three AdamW with betas (0.9, 0.95).
"""

mask = dict(type="learned", ratio=0.75, arch="token", sampling="gumbel_topk", normalize="mask")
feedback = dict(type="linear", pooling="avg")
levels = dict(lower_steps=2, head_steps=5, solver="one_step")
