"""The checks of the exercises, one function each, in a module for each notebook.

`telling.py` says how they look and speak. Each takes what the learner wrote and prints one line. What it must do is
tried on several inputs, among them the ends and the empty cases; how it is written does not matter.
"""

from medvlt_lib.course.checks.data import boxed_letter, copies, true_accuracy
from medvlt_lib.course.checks.filtering import keep, pass_at_k, smallest_group
from medvlt_lib.course.checks.grpo import advantages, clipped, curves, grpo_loss
from medvlt_lib.course.checks.sft import label_mask, qlora_bytes, whole_loss

__all__ = [
    "advantages",
    "boxed_letter",
    "clipped",
    "copies",
    "curves",
    "grpo_loss",
    "keep",
    "label_mask",
    "pass_at_k",
    "qlora_bytes",
    "smallest_group",
    "true_accuracy",
    "whole_loss",
]
