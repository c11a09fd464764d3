"""Feedback losses of stages II and III: the modules of this folder register themselves; `create` builds one by name."""

from mlomae.common.registry import import_modules
from mlomae.feedback.base import Feedback, JointFeedback, create, is_dense, is_joint, list_feedbacks, register

import_modules(__name__)

__all__ = ["Feedback", "JointFeedback", "create", "is_dense", "is_joint", "list_feedbacks", "register"]
