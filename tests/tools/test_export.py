"""What export-data cannot do without is named before anything is written."""

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import write_json
from medvlt_lib.core.runs import open_run
from medvlt_lib.tools.export import export_data


@pytest.mark.parametrize("part", [None, ""])
def test_a_stage_without_rollouts_is_a_sentence(tmp_path, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    run = open_run("tiny", "bare")
    write_json(run.folder / "02_filtering" / "metrics.json", {"pass_counts": [1]})
    if part is not None:
        (run.folder / "02_filtering" / "rollouts").mkdir()
        (run.folder / "02_filtering" / "rollouts" / "part-00000.jsonl").write_text(part)
    with pytest.raises(UserError, match="holds no rollouts"):
        export_data(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
