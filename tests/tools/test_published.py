"""Published tables as data: what is printed adds up, errors are binomial, verdicts by hand, the recorded analysis."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.stats import accuracy_interval
from medvlt_lib.data.benchmarks import SIX_QUESTIONS
from medvlt_lib.tools.published_analysis import reanalysis
from medvlt_lib.tools.published_tables import (
    AGREES,
    AVERAGE,
    CANNOT_TELL,
    DIFFERS,
    NOT_COMPARABLE,
    SETS,
    beside_file,
    error_of,
    interval_of,
    load_tables,
    verdict,
)  # fmt: skip

RESULTS = Path(__file__).parents[2] / "results"
TABLES = load_tables()
TABLE_1 = TABLES["medvlthinker_table1"]


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_table_says_where_it_is_from_and_its_averages_add_up(table):
    assert table.source and table.protocol
    for name, row in table.rows.items():
        assert all(0 < share < 1 for share in row.values()), name
        if AVERAGE in row:
            assert row[AVERAGE] == pytest.approx(np.mean([row[c] for c in table.sets]), abs=1.1e-4), name
    assert table.questions is None or set(table.questions) == set(table.sets)


def test_rows_that_stand_in_two_tables_agree():
    two = TABLES["medvlthinker_table2"].rows
    for size in ("3B", "7B"):
        assert two[f"general Qwen2.5-VL-{size}"] == TABLE_1.rows[f"{size} base"]
        assert two[f"MedVLThinker {size}-RL_m23k"] == TABLE_1.rows[f"{size} rl_text"]


def test_what_has_its_own_protocol_is_marked():
    assert {name for name, table in TABLES.items() if not table.comparable} == {
        "medvlm_r1", "medvlsynther", "newer_models"
    }  # fmt: skip


def test_errors_are_those_of_the_published_numbers_of_questions():
    row = TABLE_1.rows["7B base"]
    assert interval_of(TABLE_1, row, "VQA-RAD") == accuracy_interval(187, 272)  # 68.75 % of 272
    assert error_of(TABLE_1, row, "VQA-RAD") == pytest.approx((0.6875 * 0.3125 / 272) ** 0.5)
    rng, sets = np.random.default_rng(0), TABLE_1.sets
    drawn = np.mean([rng.binomial(TABLE_1.questions[c], row[c], 20_000) / TABLE_1.questions[c] for c in sets], axis=0)
    assert error_of(TABLE_1, row, AVERAGE) == pytest.approx(drawn.std(), rel=0.03)
    low, high = interval_of(TABLE_1, row, AVERAGE)
    assert np.mean((drawn > low) & (drawn < high)) == pytest.approx(0.95, abs=0.01)


def test_verdicts_by_hand():
    assert verdict(0.02, 0.01) == DIFFERS == verdict(-0.02, 0.01)  # two errors off
    assert verdict(0.01, 0.01) == AGREES  # 1 + 1.64 points: inside three
    assert verdict(-0.015, 0.01) == CANNOT_TELL  # 1.5 + 1.64: perhaps further than three
    assert verdict(0.0, 0.02) == CANNOT_TELL  # nothing seen, but with too few questions
    rng = np.random.default_rng(1)
    said = [verdict(d, 0.01) for d in rng.normal(0.03, 0.01, 4000)]  # truly at the margin
    assert said.count(AGREES) / 4000 <= 0.06


def answers(path: Path, shares: dict[str, tuple[int, int]]) -> Path:
    """A file of answers: of each data set so many right of so many."""
    rows = [
        json.dumps({"id": f"{name}-{i}", "dataset": name, "correct": i < right})
        for name, (right, number) in shares.items() for i in range(number)
    ]  # fmt: skip
    path.write_text("\n".join(rows))
    return path


ALIKE = {
    "pmc_vqa": (986, 2000), "MMMU-medical": (90, 170), "MedXpertQA-MM": (378, 2000), "pathvqa_closed": (2198, 3362),
    "slake_closed": (273, 416), "vqa_rad_closed": (187, 272),
}  # fmt: skip


def cells_of(path: Path) -> dict[str, dict]:
    return {cell["set"]: cell for cell in beside_file(path, "medvlthinker_table1", "7B base")["cells"]}


def test_measured_beside_published(tmp_path):
    """The published shares themselves: large sets agree, small ones cannot tell; ten points more on SLAKE differ."""
    cells = {
        c["set"]: c
        for c in beside_file(answers(tmp_path / "a.jsonl", ALIKE), "medvlthinker_table1", "7B base")["cells"]
    }
    assert [c["verdict"] for c in cells.values()] == [
        AGREES,
        CANNOT_TELL,
        AGREES,
        AGREES,
        CANNOT_TELL,
        CANNOT_TELL,
        AGREES,
    ]
    assert cells["PMC-VQA"]["error"] == pytest.approx((2 * 0.493 * 0.507 / 2000) ** 0.5, rel=0.01)
    assert cells["Avg"]["measured"] == pytest.approx(0.535, abs=1e-3)
    more = answers(tmp_path / "b.jsonl", {"slake_closed": (315, 416)})
    cells = cells_of(more)
    assert cells["SLAKE"]["verdict"] == DIFFERS and cells["SLAKE"]["difference"] == pytest.approx(0.1, abs=0.001)
    assert "measured" not in cells["PMC-VQA"] and "measured" not in cells["Avg"]


def test_what_is_not_comparable_gets_no_verdict(tmp_path):
    found = beside_file(answers(tmp_path / "a.jsonl", ALIKE), "newer_models", "others Qwen2.5-VL-7B")
    assert {c["verdict"] for c in found["cells"]} == {NOT_COMPARABLE}
    assert not any("difference" in c or "published_interval" in c for c in found["cells"])


def test_mistakes_are_sentences(tmp_path):
    path = answers(tmp_path / "a.jsonl", {"nodule_count": (3, 5)})
    with pytest.raises(UserError, match="answers to nodule_count, which no published table has"):
        beside_file(path, "medvlthinker_table1", "7B base")
    with pytest.raises(UserError, match="no row '7B'; its rows are 3B base"):
        beside_file(path, "medvlthinker_table1", "7B")
    with pytest.raises(UserError, match="no published table 'x'; choose one of medvlm_r1"):
        beside_file(path, "x", "7B base")
    done = CliRunner().invoke(app, ["published", "--row", "7B base"])
    assert isinstance(done.exception, UserError) and "go together" in str(done.exception)


def test_our_data_sets_are_the_six():
    """Those that have a column are those that `medvlt eval --benchmarks six` asks, with as many questions."""
    assert set(SETS.values()) == set(TABLE_1.sets)
    assert {name: TABLE_1.questions[column] in SIX_QUESTIONS[name] for name, column in SETS.items()} == dict.fromkeys(
        SIX_QUESTIONS, True
    )


def test_the_recorded_analysis_is_what_the_command_writes(tmp_path):
    done = CliRunner().invoke(app, ["published", "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0 and "+1.38" in done.output
    assert (tmp_path / "found.json").read_text() == (RESULTS / "published-reanalysis.json").read_text()


def test_the_readme_says_what_was_found():
    readme = " ".join((RESULTS.parent / "README.md").read_text(encoding="utf-8").split())
    found = reanalysis()
    held = [claim for claim in found["claims"] if claim["verdict"] == "differs"]
    [gain] = [c for c in found["claims"] if (c["row"], c["against"]) == ("7B rl_text", "7B base")]
    low, high = gain["interval"]
    assert (
        f"{gain['difference']:+.2f} points of RL on text at 7B have an interval of {low:.1f} to {high:+.1f}" in readme
    )
    assert f"must differ by {found['widths']['VQA-RAD']['detectable']:.0f} points" in readme
    assert f"{len(held)} of {len(found['claims'])} differences hold together" in readme


def test_the_analysis_by_hand():
    """+1.38 points: 54.88 - 53.50, with the errors of two means of six binomials."""
    found = reanalysis()
    [claim] = [c for c in found["claims"] if (c["row"], c["against"]) == ("7B rl_text", "7B base")]
    one, two, n = TABLE_1.rows["7B rl_text"], TABLE_1.rows["7B base"], TABLE_1.questions
    error = sum(r[c] * (1 - r[c]) / n[c] for r in (one, two) for c in TABLE_1.sets) ** 0.5 / 6
    assert claim["difference"] == 1.38
    assert claim["interval"] == pytest.approx([1.38 - 196 * error, 1.38 + 196 * error], abs=0.01)
    assert claim["p"] == pytest.approx(2 * norm.sf(0.0138 / error), rel=0.05) and claim["verdict"] == CANNOT_TELL
    paired = error * (1 - claim["needed_correlation"]) ** 0.5
    assert 0.0138 / paired == pytest.approx(1.96, rel=0.02)
    assert found["widths"]["VQA-RAD"]["half_width"] == pytest.approx(100 * 1.96 * (0.6 * 0.4 / 272) ** 0.5, abs=0.3)
    [hurts] = [c for c in found["claims"] if (c["row"], c["against"]) == ("3B sft_text", "3B base")]
    assert hurts["verdict"] == "differs" and hurts["difference"] == -16.34 and hurts["needed_correlation"] is None
    assert found["averages"] == {name: {} for name in found["averages"]}
