"""Studies as lists of runs: what is shared, what differs, what comes first."""

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.study.cells import cell, cells_of, definitions, study

NAMES = [name for name in definitions()["studies"] if name != "pilot"]


def test_runs_that_come_to_the_same_are_made_once():
    together = cells_of(["recipes", "habit", "diversity"], [0, 1], "tiny")
    alone = [cells_of([name], [0, 1], "tiny") for name in ("recipes", "habit", "diversity")]
    assert set(together) == set().union(*alone)
    assert len(together) < sum(map(len, alone))
    looks = {cell.label: asked for cell, asked in together.values() if cell.seed == 0}
    assert looks["rl_text"] == ["greedy", "sampled"]
    assert looks["sft_text"] == ["greedy"]


def test_a_chained_arm_comes_after_the_one_that_it_goes_on_from():
    order = [cell.label for cell, _ in cells_of(["recipes"], [0], "tiny").values()]
    assert order.index("rl_text") < order.index("rl_text-rl_image")
    assert order.index("sft_text.foreign") < order.index("sft_text-rl_image.foreign")


def test_every_arm_of_every_study_can_be_resolved():
    for name in (*NAMES, "pilot"):
        profile = study(name)["profile"]
        for one, _ in cells_of([name], [0], profile).values():
            assert one.resolved().profile == profile
            assert one.method in ("base", "sft", "rl")


def test_the_pretrained_model_meets_the_same_teachers_in_its_own_settings():
    cells = {one.label: (one, looks) for one, looks in cells_of(["pretrained"], [0], "smol").values()}
    plain = load_profile("smol")
    assert {looks[-1] for _, looks in cells.values()} == {"language"}
    for label, style in (("sft_text", "plain"), ("sft_text.foreign", "foreign"), ("sft_text.terse", "terse")):
        own = cells[label][0].resolved()
        assert (own.data.trace_style, own.data.wording, own.model.name) == (style, "plain", "phantom:smol")
        assert own.sft.learning_rate == plain.sft.learning_rate  # those that were tuned are the tiny model's
    rl = cells["rl_text"][0].resolved()
    assert rl.grpo.learning_rate == plain.grpo.learning_rate != cell("rl_text", 0, "tiny").resolved().grpo.learning_rate
    assert cells["rl_text-rl_image"][0].start.key == cells["rl_text"][0].key


def test_a_changed_setting_or_seed_is_another_run_and_another_start_too():
    first = cell("rl_text-rl_image", 0, "tiny")
    assert first.key == cell("rl_text-rl_image", 0, "tiny").key
    assert first.key != cell("rl_text-rl_image", 1, "tiny").key
    assert first.key != cell("rl_text-rl_image", 0, "tiny", {"grpo.temperature": 0.9}).key
    other = cell("rl_text-rl_image", 0, "tiny", {"filtering.keep_to": 7})
    assert first.start is not None
    assert other.start is not None
    assert other.start.key != first.start.key


def test_a_setting_that_decides_nothing_changes_no_run():
    assert cell("rl_text", 0, "tiny").key == cell("rl_text", 0, "tiny", {"grpo.micro_batch": 64}).key


def test_arms_of_one_world_share_their_questions():
    assert cell("rl_text", 0, "tiny").world_key == cell("sft_image", 0, "tiny").world_key
    assert cell("rl_text.grounded", 0, "tiny").world_key == cell("rl_text", 0, "tiny").world_key
    assert cell("rl_image.random40", 0, "tiny").world_key != cell("rl_image.systematic40", 0, "tiny").world_key
    assert cell("rl_text", 1, "tiny").world_key != cell("rl_text", 0, "tiny").world_key


def test_arms_differ_only_in_what_their_study_turns():
    plain, noisy = cell("rl_image", 0, "tiny").settings, cell("rl_image.systematic60", 0, "tiny").settings
    turned = {key for key in noisy if noisy[key] != plain.get(key)}
    assert turned == {"data.label_noise", "data.noise_kind", "data.train_text_size"}


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: study("recipe"), "recipe"),
        (lambda: cell("rl_txt", 0, "tiny"), "rl_txt"),
        (lambda: cell("rl_text", 0, "full-7b"), "not laid out for the profile full-7b"),
        (lambda: cells_of(["recipes"], [0], "tiny", {"grpo.group_size": 3}), "group_size"),
        (lambda: cells_of(["pretrained"], [0], "tiny"), "run it with --profile smol"),
    ],
)
def test_what_is_not_there_is_one_sentence(call, word):
    with pytest.raises(UserError, match=word):
        call()
