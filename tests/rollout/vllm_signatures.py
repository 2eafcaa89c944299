"""The keywords that published vLLM wheels accept, read from the wheels without installing them.

pip download --no-deps vllm==0.26.0 vllm==0.31.0 (one at a time), then
python tests/unit/vllm_signatures.py vllm-*.whl > tests/unit/vllm_signatures.json
"""

import ast
import json
import sys
import zipfile
from pathlib import Path

PLACES = {
    "LLM": ("vllm/entrypoints/llm.py", "LLM", "__init__"),
    "LLM.generate": ("vllm/entrypoints/llm.py", "LLM", "generate"),
    "EngineArgs": ("vllm/engine/arg_utils.py", "EngineArgs", None),
    "SamplingParams": ("vllm/sampling_params.py", "SamplingParams", None),
    "LoRARequest": ("vllm/lora/request.py", "LoRARequest", None),
}


def names(source: str, cls: str, method: str | None) -> list[str]:
    """A method's keywords, or a data class's fields."""
    [body] = [node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == cls]
    if method is None:
        return sorted(
            node.target.id for node in body if isinstance(node, ast.AnnAssign) and not node.target.id.startswith("_")
        )
    [function] = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == method]
    return sorted(a.arg for a in (*function.args.args, *function.args.kwonlyargs) if a.arg != "self")


def signatures(wheel: Path) -> dict[str, list[str]]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: names(archive.read(path).decode(), cls, method) for name, (path, cls, method) in PLACES.items()}


if __name__ == "__main__":
    found = {Path(w).name.split("-")[1]: signatures(Path(w)) for w in sys.argv[1:]}
    json.dump(found, sys.stdout, indent=1)
    print()
