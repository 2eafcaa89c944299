"""Each alarm is given for the fault it names, and none for a healthy run. The logs are written by hand, but for the
recorded one; test_alarms_in_training.py has real runs."""

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import medvlt_lib
from medvlt_lib.core.files import read_json, read_jsonl
from medvlt_lib.training.monitor import ALARMS, alarm_bell, alarms
from medvlt_lib.training.question_queue import QuestionQueue

RECORDED = Path(medvlt_lib.__file__).parent / "assets/reference/04_grpo/rl_text/log.jsonl"


def healthy(steps=40):
    """A run like the recorded one: the reward rises from 0.4 to 0.8 with noise, everything else stays in its bounds."""
    noise = random.Random(0)
    return [
        {
            "reward": 0.4 + 0.4 * i / steps + noise.uniform(-0.06, 0.06), "reward_std": 0.4,
            "frac_reward_zero_std": 0.2, "grad_norm": 0.6, 
            "entropy": 0.9 - 0.4 * i / steps, "completions/clipped_ratio": 0.02, "loss": 0.0,
            "live_groups": 0.8, "correct": 0.45 + 0.4 * i / steps + noise.uniform(-0.06, 0.06),
            "no_answer": 0.05, "well_formed": 0.7 + 0.3 * i / steps, **({"picture_effect": 1.5} if i % 10 == 0 else {}),
        }
        for i in range(steps)
    ]  # fmt: skip


def changed(**columns):
    """A healthy log with some columns given as functions of the step (0 to 1)."""
    rows = healthy()
    return [{**row, **{k: f(i / len(rows)) for k, f in columns.items()}} for i, row in enumerate(rows)]


FAULTS = {
    "constant reward": {"live_groups": lambda t: 0.0, "reward": lambda t: 0.7, "reward_std": lambda t: 0.0},
    "reward without gradient": {"grad_norm": lambda t: 0.0},
    "entropy collapse": {"entropy": lambda t: 0.9 * 0.001**t},
    "lengths at the cap": {"completions/clipped_ratio": lambda t: t},
    "rate too high": {"reward": lambda t: 0.8 if t < 0.6 else 0.1},
    "nothing is learnt": {"reward": lambda t: 0.4 + 0.05 * ((40 * t) % 2)},
    "form hacking": {"correct": lambda t: 0.4 + 0.05 * ((40 * t) % 2)},
    "sampler is another policy": {"sampler/effective_share": lambda t: 0.6},
    "pictures do not matter": {"picture_effect": lambda t: 0.02},
}


def test_a_healthy_run_is_silent():
    assert alarms(healthy()) == {}


def test_the_recorded_run_is_silent_at_every_step():
    log = list(read_jsonl(RECORDED))
    assert len(log) >= 40
    assert [alarms(log[:step]) for step in range(len(log) + 1)] == [{}] * (len(log) + 1)


def test_a_sampler_whose_weights_do_not_follow_is_told_from_others_in_the_recorded_runs():
    runs = read_json(Path(__file__).parents[2] / "benchmarks/vllm_grpo.json")["runs"]
    rang = {}
    for name in ("vllm dequantized", "vllm original", "vllm stale, corrected"):
        shares = runs[name]["effective_share"]
        log = [{**row, "sampler/effective_share": share} for row, share in zip(healthy(), shares, strict=False)]
        rang[name] = {alarm for step in range(len(log) + 1) for alarm in alarms(log[:step])}
    assert rang == {
        "vllm dequantized": set(), "vllm original": set(), "vllm stale, corrected": {"sampler is another policy"},
    }  # fmt: skip


EASY_FIRST = {"reward": lambda t: 0.9 - 0.6 * t, "correct": lambda t: 0.92 - 0.6 * t}


def test_a_reward_that_falls_as_questions_get_harder_is_no_alarm():
    log = changed(**EASY_FIRST)
    assert set(alarms(log)) == {"rate too high", "nothing is learnt"}
    assert [alarms(log[:step], "easy-first") for step in range(len(log) + 1)] == [{}] * (len(log) + 1)


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"rate too high", "nothing is learnt", "form hacking"}))
def test_other_faults_ring_in_any_order(name):
    for order in ("easy-first", "online"):
        log = changed(**{"reward": EASY_FIRST["reward"], **FAULTS[name]})
        assert set(alarms(log, order)) - {"rate too high"} == {name}


@pytest.mark.parametrize("count", [24, 400])
@pytest.mark.parametrize("order", ["shuffled", "easy-first", "online"])
def test_a_policy_that_learns_is_silent_whatever_is_asked(order, count):
    """Real queues ask a policy whose chance of each question rises at every step, by 2 logits in all; groups of 16."""
    random = np.random.default_rng(7)
    ability = random.normal(-0.5, 1, count)
    counts = [(int(random.binomial(16, p)), 16) for p in chance(ability)]
    queue, log, steps = QuestionQueue(count, order, 3, counts), [], 60
    for step in range(steps):
        asked = queue.take(8)
        right = random.binomial(16, chance(ability[asked] + 2 * step / steps))
        queue.learn(asked, right.tolist(), 16)
        reward = float(right.mean() / 16)
        live = float(((right > 0) & (right < 16)).mean())
        log.append({**healthy(steps)[step], "reward": reward, "correct": reward, "live_groups": live})
        assert alarms(log, order) == {}, step


def chance(logits):
    return 1 / (1 + np.exp(-logits))


def test_the_bell_of_a_trainer_knows_its_order(make_trainer, capsys):
    for order, rings in (("shuffled", True), ("easy-first", False)):
        trainer = make_trainer("shared", **{"grpo.order": order})
        [bell] = [c for c in trainer.callback_handler.callbacks if type(c).__name__ == "AlarmBell"]
        bell.on_log(
            None, SimpleNamespace(log_history=changed(**EASY_FIRST), global_step=40, is_world_process_zero=True), None
        )
        assert ("rate too high" in capsys.readouterr().err) is rings


def test_an_alarm_names_a_setting_to_turn():
    assert set(FAULTS) == set(ALARMS)
    for name, (_, sentence) in ALARMS.items():
        assert any(word in sentence for word in ("grpo.", "model.", "filtering.", "data.")), name


def test_too_few_steps_say_nothing():
    assert alarms(changed(grad_norm=lambda t: 0.0)[:9]) == {}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_gives_its_alarm(name):
    found = alarms(changed(**FAULTS[name]))
    assert name in found
    assert set(found) <= {name, "nothing is learnt", "rate too high"}  # a fault may also stop the learning


def test_a_loss_of_zero_is_no_alarm():
    assert alarms(changed(loss=lambda t: 0.0)) == {}


def test_the_bell_rings_once_for_an_alarm(capsys):
    bell, rows = alarm_bell(), changed(**FAULTS["lengths at the cap"])
    for step in range(30, 40):
        state = SimpleNamespace(log_history=rows[:step], global_step=step, is_world_process_zero=True)
        bell.on_log(None, state, None)
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "lengths at the cap: more than half" in line]) == 1
