"""Pretraining: from a configuration to a checkpoint and a record."""

from mlomae.common.numerics import declare_numerics

declare_numerics("pretraining", 1)
declare_numerics("evaluation", 1)
