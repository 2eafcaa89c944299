"""`transformers serve` on a tiny model, for the tests of the OpenAI-compatible engine: python serve_tiny.py PORT MODEL

Without torchvision transformers' server cannot build the processor, so its class is first replaced by ours of the same
name.
"""

import sys

import transformers
from transformers.models.qwen2_5_vl import processing_qwen2_5_vl

from medvlt_lib.models.processor import _image_text_processor, torchvision_loads

if not torchvision_loads():
    processing_qwen2_5_vl.Qwen2_5_VLProcessor = transformers.Qwen2_5_VLProcessor = _image_text_processor()

if __name__ == "__main__":
    from transformers.cli.serve import Serve

    Serve(
        force_model=sys.argv[2],
        port=int(sys.argv[1]),
        host="127.0.0.1",
        device="cpu",
        dtype="float32",
        log_level="warning",
        default_seed=0,
    )
