"""Feedback losses of stages II and III, one file each; `create` builds one by name."""

from mlomae.feedback import linear, nca, ridge, segmentation  # noqa: F401  (importing a feedback registers it)
from mlomae.feedback.base import Feedback, JointFeedback, create, is_dense, is_joint, list_feedbacks, register

__all__ = ["Feedback", "JointFeedback", "create", "is_dense", "is_joint", "list_feedbacks", "register"]
