"""Lets the published torchvision be imported beside a CPU build of torch, which vLLM's own import needs.

For `make test-vllm` alone, which puts this folder on PYTHONPATH: vLLM looks at models in a process of its own.
torchvision's compiled operators do not fit such a torch, and vLLM calls none of them, so they are declared without any
code, just before torchvision is imported for the first time.
"""

import importlib.abc
import sys

POOLS = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
OPERATORS = ("nms", "qnms", *POOLS, *(f"_{name}_backward" for name in POOLS))


class DeclareOperators(importlib.abc.MetaPathFinder):
    kept = None  # a library that is collected takes its operators with it

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            DeclareOperators.kept = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                DeclareOperators.kept.define(f"{operator}(Tensor a) -> Tensor")


sys.meta_path.insert(0, DeclareOperators())
