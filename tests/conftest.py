"""Before any test module imports torch: its threads wait as they do in a run. Properties are tested on the same
examples in every run; `--hypothesis-profile search` looks for new ones. No test notes a pass among the user's own."""

import os
import tempfile

import pytest
from hypothesis import settings

from medvlt_lib.core.threads import bound_spinning

settings.register_profile("fixed", derandomize=True)
settings.register_profile("search", derandomize=False)
settings.load_profile("fixed")
bound_spinning()
_lesson = tempfile.TemporaryDirectory(prefix="medvlt-lesson-")  # deleted when this process ends
os.environ["MEDVLT_LESSON"] = _lesson.name


@pytest.fixture
def steady_threads(monkeypatch):
    """One thread from beginning to end, for tests that compare two trainings bit for bit. Elsewhere torch takes a
    thread for each core that other work leaves free (core/threads.py): with another number sums round otherwise."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a person's own number: no model looks for free cores
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
