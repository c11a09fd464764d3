"""MLO-MAE whose masking network also pools the feedback: the setting in which the learned mask earns its cost so far.

Departures from the paper: the feedback is a soft k-NN without parameters (nca) on the mean of the patch tokens weighed
by σ, so that the upper loss depends on the masking network directly; φ follows that explicit part alone, in every fifth
outer iteration; masks are uniform and σ is the weight of a patch's error (masking objects more often lowers accuracy
even for the oracle). Labelled images are not padded: black borders drown the class in the mean of the tokens.
"""

mask = dict(type="learned", ratio=0.75, arch="token", sampling="random", scale=2.0, normalize="mask")
feedback = dict(type="nca", temperature=0.1, pooling="avg")
levels = dict(lower_steps=2, solver="explicit", mask_pooling=True, upper_every=5)
