"""An update that reads each prompt once gives what TRL's own path gives, for every layout of groups."""

import pytest
import torch

from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training.batches import live_rows, permuted_groups
from tests.training.conftest import generation_batch, logps_of, loss_and_gradients


def assert_alike(one, two, relative=1e-5):
    """Gradients of two trainers: the same weights have one, and they differ little for their size."""
    assert one.keys() == two.keys()
    largest = max(g.abs().max() for g in one.values())
    for name in one:
        assert (one[name] - two[name]).abs().max() <= relative * max(one[name].abs().max(), 0.01 * largest), name


def both(make_trainer, *args, **kwargs):
    return make_trainer("stock", *args, **kwargs), make_trainer("shared", *args, **kwargs)


def two_pictures():
    """Questions of which the first shows two pictures, the second one, the others none."""
    questions = [*make_questions("nodule_count", "train", 3, seed=5), *make_questions("curb65", "train", 2, seed=5)]
    first, _, extra = questions[:3]
    first.images, first.image_ids = [*first.images, *extra.images], [*first.image_ids, *extra.image_ids]
    return [questions[0], questions[1], *questions[3:]]


@pytest.mark.parametrize("families", ["curb65,apgar", "nodule_count,cup_to_disc_ratio", "curb65,nodule_count"])
@pytest.mark.parametrize("group", [4, 8, 16])
def test_log_probabilities_and_gradients_are_those_of_the_stock_path(make_trainer, families, group):
    sizes = {"grpo.group_size": group, "grpo.micro_batch": 4 * group}
    stock, grouped = both(make_trainer, families, **sizes)
    batch = generation_batch(stock)
    assert len({int(n) for n in batch["completion_mask"].sum(1)}) > 1  # mixed lengths
    for trainer in (stock, grouped):
        trainer.model.double()  # so that what differs is not the rounding, which processors do in their own ways
    one, two = loss_and_gradients(stock, batch), loss_and_gradients(grouped, batch)
    assert grouped.shared
    assert one[0] == pytest.approx(two[0], abs=1e-5)
    assert_alike(one[1], two[1])


def test_two_pictures_in_a_prompt_beside_one_and_none(make_trainer):
    stock, grouped = both(make_trainer, questions=two_pictures())
    batch = generation_batch(stock)
    assert batch["num_images"][::4] == [2, 1, 0, 0]
    one, two = loss_and_gradients(stock, batch), loss_and_gradients(grouped, batch)
    assert grouped.shared
    assert_alike(one[1], two[1])


@pytest.mark.parametrize("families", ["curb65,apgar", "nodule_count,cup_to_disc_ratio", "curb65,nodule_count"])
@pytest.mark.parametrize("group", [4, 16])
def test_log_probabilities_in_float32(make_trainer, families, group):
    stock, grouped = both(make_trainer, families, **{"grpo.group_size": group, "grpo.micro_batch": 4 * group})
    batch = generation_batch(stock)
    assert_equal_logps(stock, grouped, batch)


def assert_equal_logps(stock, grouped, batch):
    apart = (logps_of(stock, batch) - logps_of(grouped, batch)) * batch["completion_mask"]
    assert grouped.shared and apart.abs().max() <= 1e-4


ADAPTERS = {"LoRA": ("tiny", {"model.lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}), "NF4": ("tiny-qlora", {})}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters(make_trainer, kind):
    """On whole weights and on 4-bit ones, with adapters that do something."""
    profile, settings = ADAPTERS[kind]
    stock, grouped = both(make_trainer, profile=profile, **settings)
    torch.manual_seed(1)
    weights = {n: torch.randn_like(p) / 20 for n, p in stock.model.named_parameters() if "lora_" in n}
    for trainer in (stock, grouped):
        for name, parameter in trainer.model.named_parameters():
            if name in weights:
                parameter.data.copy_(weights[name])
    batch = generation_batch(stock)
    assert_equal_logps(stock, grouped, batch)
    one, two = loss_and_gradients(stock, batch), loss_and_gradients(grouped, batch)
    assert one[1].keys() == weights.keys()
    assert_alike(one[1], two[1])


def test_with_a_kl_term_groups_without_signal_are_pulled_too(make_trainer):
    """Away from the reference the KL term has a gradient in every group, so none is left out."""
    stock, grouped = both(make_trainer)
    batch = generation_batch(stock)
    batch["advantages"][:8] = 0.0
    noise = torch.randn(batch["completion_ids"].shape, generator=torch.Generator().manual_seed(2))
    batch["ref_per_token_logps"] = (logps_of(stock, batch) + 0.3 * noise) * batch["completion_mask"]
    without = loss_and_gradients(grouped, batch)[1]
    for trainer in (stock, grouped):
        trainer.beta = 0.1
    one, two = loss_and_gradients(stock, batch), loss_and_gradients(grouped, batch)
    assert one[0] == pytest.approx(two[0], rel=1e-5) and one[0] != 0
    assert_alike(one[1], two[1])
    batch["advantages"][:] = 0.0
    kl_alone = loss_and_gradients(grouped, batch)[1]
    assert max(g.abs().max() for g in kl_alone.values()) > 0.01 * max(g.abs().max() for g in without.values())


def test_pictures_swapped_between_prompts_change_the_log_probabilities(make_trainer):
    grouped = make_trainer("shared", "nodule_count,cup_to_disc_ratio")
    batch = generation_batch(grouped)
    first = loss_and_gradients(grouped, batch)[1]
    rows = len(batch["pixel_values"]) // 2
    swapped = {**batch, "pixel_values": torch.cat([batch["pixel_values"][rows:], batch["pixel_values"][:rows]])}
    second = loss_and_gradients(grouped, swapped)[
        1
    ]  # the loss itself is the same: at ratio 1 it holds no log-probability
    assert max((first[n] - second[n]).abs().max() for n in first) > 1e-4


def test_a_group_of_several_prompts_is_found_out(make_trainer):
    grouped = make_trainer("shared")
    batch = generation_batch(grouped)
    loss_and_gradients(grouped, batch)
    mixed = {**batch, "prompt_ids": batch["prompt_ids"].roll(1, 0), "prompt_mask": batch["prompt_mask"].roll(1, 0)}
    with pytest.raises(AssertionError, match="several prompts"):
        loss_and_gradients(grouped, mixed)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo"])
def test_groups_that_teach_nothing_are_left_out_exactly(make_trainer, loss_type):
    """Questions 0 and 1 are text, 2 and 3 pictures: whatever is dead, the same weights get the same gradients, at ratio
    1 and away from it."""
    stock, grouped = both(make_trainer, **{"grpo.loss_type": loss_type})
    batch = generation_batch(stock)
    noise = torch.randn(batch["completion_ids"].shape, generator=torch.Generator().manual_seed(2))
    old = logps_of(stock, batch) + 0.3 * noise * batch["completion_mask"]
    for dead in ([0], [0, 1, 2], [1, 3], [0, 1, 2, 3]):
        advantages = batch["advantages"].view(4, 4).clone()
        advantages[dead] = 0.0
        own = {**batch, "advantages": advantages.flatten()}
        for given in (own, {**own, "old_per_token_logps": old}):
            one, two = loss_and_gradients(stock, given), loss_and_gradients(grouped, given)
            assert one[0] == pytest.approx(two[0], rel=1e-5, abs=1e-6) and one[1].keys() == two[1].keys(), dead
            if len(dead) == 4:
                assert all(g.abs().max() == 0 for g in two[1].values())
            else:
                assert_alike(one[1], two[1])


def test_dead_groups_are_not_computed(make_trainer, monkeypatch):
    grouped = make_trainer("shared", "curb65,apgar")
    batch = generation_batch(grouped)
    loss_and_gradients(grouped, batch)
    rows = []
    from medvlt_lib.training import grouped as module

    real = module.completion_logprobs
    monkeypatch.setattr(module, "completion_logprobs", lambda m, b: rows.append(len(b.completion_ids)) or real(m, b))
    advantages = batch["advantages"].clone()
    advantages[4:] = 0.0
    loss_and_gradients(grouped, {**batch, "advantages": advantages})
    assert rows == [4]


def test_equal_rewards_give_advantages_of_exactly_zero(make_trainer, monkeypatch):
    """Sixteen rewards of 0.7 have a mean that is not 0.7 in float32."""
    grouped = make_trainer("shared", "curb65,apgar", **{"grpo.group_size": 16, "grpo.micro_batch": 64})
    monkeypatch.setattr(grouped, "reward_funcs", [lambda completions, **_: [0.7] * len(completions)])
    rows = [row for row in grouped.train_dataset for _ in range(16)]
    assert grouped._generate_and_score_completions(rows)["advantages"].eq(0).all()


def test_whole_groups_are_permuted():
    torch.manual_seed(0)
    batch = {
        "prompt_ids": torch.arange(12)[:, None],
        "num_images": list(range(12)),
        "scalar": torch.tensor(3.0),
        "none": None,
    }
    mixed = permuted_groups(batch, 4, torch.Generator().manual_seed(0))
    order = mixed["prompt_ids"].flatten().tolist()
    assert sorted(order) == list(range(12)) and order != list(range(12))
    assert all(order[i] // 4 == order[i - i % 4] // 4 and order[i] % 4 == i % 4 for i in range(12))
    assert mixed["num_images"] == order and mixed["scalar"] == 3 and mixed["none"] is None


@pytest.mark.parametrize(
    ("advantages", "images", "expected"),
    [
        ([1, 0, 0, 0], None, [0, 1]),
        ([0, 0, 0, 0], None, [0]),
        ([1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2]),  # a dead group with a picture: one row of it stands in
        ([0, 0, 0, 1], [0, 0, 1, 1], [0, 2, 3]),
        ([0, 0, 0, 0], [0, 0, 1, 1], [0, 2]),
    ],
)
def test_rows_that_take_part(advantages, images, expected):
    assert live_rows(torch.tensor(advantages) != 0, images, 2) == expected


def test_it_falls_back_with_a_sentence_when_the_paths_differ(make_trainer, monkeypatch, capsys):
    from medvlt_lib.training import grouped as module

    real = module.completion_logprobs
    monkeypatch.setattr(module, "completion_logprobs", lambda m, b: tuple(x * 1.5 for x in real(m, b)))
    stock, grouped = both(make_trainer)
    batch = generation_batch(stock)
    assert_alike(loss_and_gradients(stock, batch)[1], loss_and_gradients(grouped, batch)[1])
    assert not grouped.shared and "TRL's path is used" in capsys.readouterr().err
