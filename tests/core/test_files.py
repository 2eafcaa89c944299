"""Files are whole or not there, and readable by whom the user allows."""

import subprocess
import sys

import pytest

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
