"""Peak memory is in megabytes on Linux and on macOS, whose systems count in other units."""

import resource
import sys
from types import SimpleNamespace

import psutil
import pytest

from medvlt_lib.core.memory import peak_memory_mb
from medvlt_lib.course.lesson import _peak_memory


@pytest.mark.parametrize(("platform", "counted"), [("linux", 512 * 1024), ("darwin", 512 * 1024 * 1024)])
def test_512_megabytes_are_512_on_both(platform, counted, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=counted))
    assert peak_memory_mb() == 512
    assert _peak_memory() == 512


def test_the_peak_lies_between_what_is_in_use_now_and_what_the_machine_has():
    in_use = psutil.Process().memory_info().rss / 2**20
    assert in_use - 1 <= peak_memory_mb() <= psutil.virtual_memory().total / 2**20
