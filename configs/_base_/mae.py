"""The baseline: uniformly random masks. One outer iteration is two plain MAE steps, as many as MLO-MAE takes."""

mask = dict(type="random", ratio=0.75)
levels = dict(lower_steps=2)
