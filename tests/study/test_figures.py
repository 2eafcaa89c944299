"""Figures of the studies and what they are drawn from: values read off the axes, gaps where nothing was run."""

import math
from statistics import fmean

import pytest

from medvlt_lib.core import widgets
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.study import dials, figures, reach
from medvlt_lib.study.findings import CANNOT_TELL, NOT_RUN, families_of, kept_verdicts
from medvlt_lib.study.noise import noise_points, reading
from medvlt_lib.study.results import SHIPPED, write_result
from tests.study.made_up import made_up_result


@pytest.fixture
def noisy(tmp_path):
    """A made-up study `noise`: 80 % with clean labels, 60 % with 40 % of them wrong at random, and little else."""
    for label, shares in (("base", [0.5]), ("rl_image", [0.8, 0.8]), ("rl_image.random40", [0.56, 0.64])):
        for seed, share in enumerate(shares):
            write_result(tmp_path, *made_up_result(label, seed, share))
    return tmp_path


def test_noise_points_are_the_accuracies_that_were_run(noisy):
    points, others = noise_points("image.trained", noisy)
    own = points["rl_image", "random"]
    assert list(own) == [0, 40] and len(own[40]) == 2 and fmean(own[40]) == pytest.approx(0.6, abs=0.03)
    assert points["rl_image", "systematic"] == {0: own[0]} and points["sft_image", "random"] == {}
    assert list(others) == ["base"]


def test_a_position_of_the_dials_in_words(noisy):
    points, _ = noise_points("image.trained", noisy)
    read = reading(points, "RL on pictures", "random", 40, "pictures, trained on")
    lost = 100 * (fmean(points["rl_image", "random"][0]) - fmean(points["rl_image", "random"][40]))
    assert "mean of 2 seeds" in read and f"{lost:.1f} points less than with clean labels" in read and lost > 15
    assert "not run" in reading(points, "SFT on pictures", "random", 40, "pictures, trained on")


def test_the_noise_figure_draws_means_and_single_seeds(noisy):
    points = noise_points("image.trained", noisy)
    axis = figures.noise({"here": points}, ("rl_image", "random", 40)).axes[0]
    means = {s: 100 * fmean(values) for s, values in points[0]["rl_image", "random"].items()}
    drawn = [dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.lines]
    assert any(own == pytest.approx(means) for own in drawn)
    dots = [line for line in axis.lines if list(line.get_xdata()) == [40, 40]]
    assert any(
        sorted(d.get_ydata()) == pytest.approx([100 * v for v in sorted(points[0]["rl_image", "random"][40])])
        for d in dots
    )
    assert any(line.get_markersize() == 14 and list(line.get_ydata()) == [means[40]] for line in axis.lines)


def test_a_noise_study_that_was_not_run_is_said(tmp_path):
    nothing = figures.noise({"here": noise_points("image.trained", tmp_path)})
    assert "medvlt study noise" in nothing.axes[0].texts[0].get_text()


def test_the_dials_follow_their_widgets(monkeypatch, capsys):
    pytest.importorskip("ipywidgets")
    monkeypatch.delenv("MEDVLT_HEADLESS", raising=False)
    box = dials.noise_dials()
    by_name = {widget.description: widget for widget in box.children if hasattr(widget, "description")}
    assert by_name["wrong, %"].value == 40
    box.update()
    by_name["wrong, %"].value, by_name["labels"].value = 60, "systematic"
    printed = " ".join(capsys.readouterr().out.split())
    points, _ = noise_points("image.trained")
    assert reading(points, "RL on pictures", "systematic", 60, "pictures, trained on") in printed


def test_without_ipywidgets_the_dials_say_so(monkeypatch, capsys):
    monkeypatch.setattr(widgets, "find_spec", lambda name: None)
    assert dials.noise_dials() is None
    assert "need a running kernel" in capsys.readouterr().out


def answered(counts: dict[str, list[int]], samples: int = 4) -> dict[str, list[dict]]:
    """Rows of answers.parquet: so many right ones of four to each question, by arm."""
    return {
        arm: [
            {"id": f"q{i}", "sample": s, "modality": "text", "correct": s < right}
            for i, right in enumerate(own)
            for s in range(samples)
        ]
        for arm, own in counts.items()
    }


def test_reach_of_a_run_by_hand():
    """pass@2 of 1 and of 4 right among 4: 1/2 and 1. Guessing among m options: 1 - (1 - 1/m)^2."""
    test = [q for q in make_questions("apgar,curb65", "test", 40, 0) if len(q.options) in (2, 4)][:2]
    rows = answered({"base": [1, 4], "rl_text": [0, 4]})
    for own in rows.values():
        for row in own:
            row["id"] = test[int(row["id"][1])].id
    found = reach.of_run(rows, test)
    assert found.samples == 4 and found.counts["text"]["base"] == {test[0].id: 1, test[1].id: 4}
    assert (found.pass_at("text", "base", 2), found.pass_at("text", "rl_text", 2)) == (0.75, 0.5)
    assert found.chance_at("text", 2) == pytest.approx(fmean(1 - (1 - 1 / len(q.options)) ** 2 for q in test))
    assert reach.of_run(answered({"base": [1]}, samples=1), test) is None


def test_reach_of_a_study_joins_its_seeds(tmp_path):
    result, _ = made_up_result("base", 0, 0.5)
    for seed in (0, 1):
        rows = [
            {"look": "sampled", "id": f"{name}-{seed}", "sample": s, "dataset": name, "correct": s < 3, "tokens": 1}
            for name in FAMILIES
            for s in range(4)
        ]
        write_result(tmp_path, result | {"seed": seed, "key": f"base-s{seed}-00000000"}, rows)
    found = reach.of_study(tmp_path)
    assert "2 seeds" in found.source and found.samples == 4
    trained = families_of("image.trained")
    assert found.counts["image"]["base"] == {f"{name}-{seed}": 3 for seed in (0, 1) for name in trained}
    assert reach.of_study(tmp_path / "nothing") is None


def test_options_of_a_study_are_those_of_its_questions():
    """What guessing gives on 600 questions, and by the shares in which their numbers of options are drawn."""
    drawn = [len(q.options) for q in make_questions("curb65,apgar", "train", 600, 3)]
    assert fmean(1 / m for m in reach._options(["curb65", "apgar"])) == pytest.approx(
        fmean(1 / m for m in drawn), abs=0.01
    )


def test_pass_at_k_and_counts_are_drawn_with_chance():
    counts = {"base": {"a": 1, "b": 4}, "rl_text": {"a": 4, "b": 4}}
    found = reach.Reach("made up", 4, {"text": counts}, {"text": [2, 4]})
    lines = {line.get_label(): list(line.get_ydata()) for line in figures.pass_at_k(found).axes[0].lines}
    assert lines["base"] == pytest.approx([62.5, 75, 87.5, 100]) and lines["rl_text"] == [100] * 4
    assert lines["guessing"][0] == pytest.approx(37.5)
    [panel] = figures.pass_counts(found).axes
    assert panel.get_title() == "rl_text, text (n = 2)"


def test_claims_are_drawn_where_they_lie_and_the_others_left_out():
    verdicts = [v for own in kept_verdicts(SHIPPED).values() for v in own]
    run = [v for v in verdicts if v.verdict != NOT_RUN][:6]
    axis = figures.claims([*run, *(v for v in verdicts if v.verdict == NOT_RUN)]).axes[0]
    assert len(axis.get_yticks()) == len(run)
    segments = {}
    for container in axis.containers:
        _, _, (bars,) = container.lines
        segments |= {round(bar[0][1]): (container.get_label(), bar[0][0], bar[1][0]) for bar in bars.get_segments()}
    assert segments == {
        i: (v.verdict, pytest.approx(100 * v.low), pytest.approx(100 * v.high)) for i, v in enumerate(run)
    }
    assert any(v.verdict == CANNOT_TELL for v in run)


def test_what_was_not_run_is_a_figure_that_says_so():
    for figure in (figures.pass_at_k(None), figures.pass_counts(None), figures.claims([])):
        [axis] = figure.axes
        assert axis.texts[0].get_text().startswith("Not run: ") and math.isclose(figure.get_figheight(), 0.5)
