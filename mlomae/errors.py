"""Errors a user can cause. Each message is one line that names the thing and the remedy.

The command line prints the line and exits with status 2; a traceback means a bug of ours, not a wrong input.
"""


class MlomaeError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class ConfigError(MlomaeError):
    """A configuration value is unknown, out of range or contradicts another one."""


class DataError(MlomaeError):
    """A data set is missing, damaged or used where it must not be."""


class CheckpointError(MlomaeError):
    """A checkpoint cannot be written, read or applied to this model."""


class TrainingError(MlomaeError):
    """Training cannot go on (a loss that is not finite, automatic mixed precision that is not active)."""
