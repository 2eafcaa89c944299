"""Files are whole or not there, and readable by whom the user allows; JSONL has one row a line feed."""

import json
import subprocess
import sys

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_jsonl, write_jsonl

LINE_ENDS = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\rh\r\ni\nj"


def test_a_text_with_every_kind_of_line_end_comes_back(tmp_path):
    rows = [{"text": LINE_ENDS}, {"text": "second"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == rows
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_jsonl(tmp_path / "plain.jsonl")) == rows


@pytest.mark.parametrize("line", ['{"step": 3, "text": "ha', "[1, 2]", "", "[" * 100_000])
def test_a_torn_line_is_named(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text('{"step": 1}\n{"step": 2}\n' + line + "\n")
    rows = read_jsonl(tmp_path / "rows.jsonl")
    assert [next(rows)["step"], next(rows)["step"]] == [1, 2]
    with pytest.raises(UserError, match=r"rows\.jsonl, line 3 is torn"):
        next(rows)


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        list(read_jsonl(tmp_path / "rows.jsonl"))


WRITE = """
import sys
from pathlib import Path
from medvlt_lib.core.files import write_json
write_json(Path(sys.argv[1]) / "written.json", 1)
(Path(sys.argv[1]) / "opened.json").write_text("1")
"""


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_a_file_has_the_permissions_that_the_umask_leaves(umask, tmp_path):
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path)], check=True, umask=umask)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == {"written.json": oct(0o666 & ~umask), "opened.json": oct(0o666 & ~umask)}
