"""MLO-MAE with mask pooling: the only setting so far in which the learned mask earns its cost.

Changes to the paper's settings: the feedback is a soft k-NN without parameters (nca) on the mean of the patch tokens
weighted by σ, so that the upper loss depends on the masking network directly; φ follows this direct term only, in every
fifth outer iteration; masks are uniform and σ is the weight of a patch's error (masking objects more often lowers
accuracy even for the oracle). Labelled images are not padded: black borders would dominate the mean of the tokens.
"""

mask = dict(type="learned", ratio=0.75, arch="token", sampling="random", scale=2.0, normalize="mask")
feedback = dict(type="nca", temperature=0.1, pooling="avg")
levels = dict(lower_steps=2, solver="explicit", mask_pooling=True, upper_every=5)
