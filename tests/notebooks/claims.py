"""What the notebooks say of their own outputs: the words, as they stand there, and whether the metrics bear them out.

Whoever changes such a sentence changes its row, and the other way round. `whole`: it is said of a run at the profile's
full size; at smoke limits it need not hold.
"""

from collections.abc import Callable
from statistics import mean
from typing import NamedTuple

KINDS = ("text", "image")


class Claim(NamedTuple):
    """`holds` takes the metrics that the notebook wrote."""

    notebook: str
    words: str
    holds: Callable[[dict], bool]
    whole: bool = False


def near(value: float, other: float, by: float) -> bool:
    return abs(value - other) <= by


def rises(values: list[float], by: float = 0) -> bool:
    return values[-1] > values[0] + by


def trained(m: dict, yes: bool) -> list[dict]:
    return [family for family in m["families"].values() if family["trained"] == yes]


def more(pair: list[float]) -> float:
    """How much the second of two is above the first."""
    return pair[1] - pair[0]


def share(habit: list[int]) -> float:
    """Right answers among those given."""
    return habit[1] / habit[0]


def lost(m: dict, teacher: str) -> float:
    """What a teacher costs against the student's own style."""
    return m["styles"]["own, clean"]["accuracy"] - m["styles"][teacher]["accuracy"]


def last_pair(m: dict) -> dict:
    """The last two arms against each other, in points."""
    return m["pairs"][m["last"]]


def gain_of_pairing(pair: dict) -> float:
    """By which share the interval of a difference becomes narrower."""
    return 1 - pair["paired"] / pair["unpaired"]


def control(m: dict, arm: str, name: str) -> dict:
    """An arm's row of a control; a claim about one that was not asked fails."""
    [row] = [row for row in m["controls"][arm] if row["control"] == name]
    return row


def steps_of(m: dict, arm: str, kind: str) -> dict:
    """The shares of steps of an arm's answers to a kind of question."""
    [row] = [row for row in m["steps"] if (row["arm"], row["modality"]) == (arm, kind)]
    return row


def lost_to_noise(m: dict, kind: str, percent: str) -> float:
    """What a share of wrong labels costs an arm on the pictures that it was trained on."""
    return m["noise"][kind]["0"] - m["noise"][kind][percent]


OF_PAPERS = (  # how the findings begin that notebook 06 names
    "The larger model starts higher",
    "The larger model ends higher",
    "SFT on MRI answers does not raise",
    "The last step of SFT on MRI answers does not raise",
    "On CT and X-ray RL on MRI beats the last step",
    "On CT and X-ray RL on MRI beats SFT",
    "RL on MRI raises",
    "RL on text beats RL on pictures, on pictures",
)


def found_here(m: dict, verdict: str) -> set[str]:
    """The papers' findings with this verdict: those of OF_PAPERS as they begin, others whole."""
    found = [claim for claim, (_, own) in m["of_papers"].items() if own == verdict]
    return {next((words for words in OF_PAPERS if claim.startswith(words)), claim) for claim in found}


def judged(m: dict, claim: str) -> list[str]:
    """The difference, as the table shows it, and the verdict of a finding of the papers, by how it begins."""
    [own] = [row for words, row in m["of_papers"].items() if words.startswith(claim)]
    return own


def errors_of(row: dict, *kinds: str) -> float:
    """The share of some first errors among all of a row."""
    return sum(row["first_errors"][kind] for kind in kinds) / max(1, sum(row["first_errors"].values()))


def highest(shares: dict) -> str:
    """The arm with the highest share."""
    return max(shares, key=lambda arm: shares[arm] or 0)


def lowest(shares: dict) -> str:
    return min(shares, key=lambda arm: 1 if shares[arm] is None else shares[arm])


def glances(m: dict, answers: str) -> float:
    """The share of glances among the errors of an arm's answers."""
    return m["errors"][answers]["glance"] / sum(m["errors"][answers].values())


CLAIMS = [
    # 00
    Claim("00_start_here", "ask a small vision-language model five medical questions", lambda m: m["asked"] == 5),
    Claim("00_start_here", "In the table below the two agree", lambda m: m["verdicts_agree"]),
    Claim(
        "00_start_here",
        "All five. At temperature 1 the model answers each of them rightly now and then, and wrongly now and then.",
        lambda m: all(0 < count < 16 for count in m["pass_counts"]),
    ),
    Claim("00_start_here", "Some work before they answer, others guess at once.", lambda m: 0 < m["guesses"] < 16),
    Claim("00_start_here", "Lower, as it must be", lambda m: m["sft_loss"][1] < m["sft_loss"][0]),
    Claim("00_start_here", "B rises because B's answers come with a positive", lambda m: rises(m["bandit"], 0.5)),
    Claim(
        "00_start_here",
        "The two gradients agree, and the bars move to B.",
        lambda m: all(near(a, b, 0.01) for a, b in zip(*m["bandit_gradients"], strict=True)) and m["bandit"][-1] > 0.9,
    ),
    Claim(
        "00_start_here",
        "one right-or-wrong bit per completion was enough to push the right ones up against the wrong ones",
        lambda m: m["log_probability_change"]["right"] > m["log_probability_change"]["wrong"] + 0.5,
    ),
    Claim(
        "00_start_here",
        "Two steps on five questions move the score by a few points",
        lambda m: near(*m["accuracy"], 0.1) and m["difference_interval"][0] < 0 < m["difference_interval"][1],
        whole=True,
    ),
    # 01
    Claim(
        "01_data", "check a gold answer yourself", lambda m: near(m["ratio"][0], float(m["ratio"][1][:-1]) / 100, 1e-6)
    ),
    Claim("01_data", "4 × 4 = 16.", lambda m: m["tokens"]["picture"] == 16 == m["card"]["test"]["image_tokens"]["max"]),
    Claim(
        "01_data",
        "The words and the picture are counted as in section 3.",
        lambda m: (
            sum(m["tokens"][part] for part in ("words", "picture", "template")) == m["tokens"]["all"]
            and m["tokens"]["words"] <= m["card"]["train_image"]["prompt_tokens"]["max"]
            and near(m["tokens"]["words"], m["card"]["train_image"]["prompt_tokens"]["median"], 8)
        ),
    ),
    Claim(
        "01_data",
        "There are fewer pictures than image questions",
        lambda m: 0 < m["card"]["train_image"]["images"] < m["questions"]["train_image"],
    ),
    Claim(
        "01_data",
        "A and B are commoner than E",
        lambda m: all(min(own["A"], own["B"]) > own.get("E", 0) for own in m["gold_letters"].values()),
        whole=True,
    ),
    Claim(
        "01_data",
        "It finds no copy, but a few look-alikes",
        lambda m: (
            0 < len(m["leaks"]) < 20 and all(how.startswith("near") and 90 < score <= 100 for how, score in m["leaks"])
        ),
        whole=True,
    ),
    Claim(
        "01_data",
        "some drawn eyes are nearly alike",
        lambda m: {how for how, _ in m["leaks"]} == {"near text", "near image"},
        whole=True,
    ),
    Claim(
        "01_data",
        "A score says how alike two questions are: 100 is equal.",
        lambda m: all(95 <= score <= 100 for _, score in m["planted_leaks"].values()),
    ),
    Claim(
        "01_data",
        "Both are found.",
        lambda m: (
            {name: how for name, (how, _) in m["planted_leaks"].items()}
            == {"words": "near text", "picture": "near image"}
            and m["planted_words"] == [True]
        ),
    ),
    Claim(
        "01_data",
        "every rule lies within noise of chance, at most three points away from it",
        lambda m: all(abs(points) <= 3 for points in m["above_chance"].values()),
        whole=True,
    ),
    Claim("01_data", "makes a share of *training* labels wrong", lambda m: m["wrong_labels"] == 0.3 * 200),
    Claim("01_data", "so it is 0 at", lambda m: near(m["slopes"]["75 %"], 0, 1e-9)),
    Claim(
        "01_data",
        "At 20 % of wrong labels the signal is weaker but points the right way",
        lambda m: 0 < m["slopes"]["20 %"] < m["slopes"]["0 %"] == 1,
    ),
    Claim(
        "01_data",
        "spoil four rows as real ones are spoiled",
        lambda m: m["cleaning"]["read"] - m["cleaning"]["kept"] == 4 == sum(m["cleaning"]["dropped"].values()),
    ),
    Claim("01_data", "Its longest side shrinks to 1024 pixels", lambda m: max(m["side"]) == 1024),
    # 02
    Claim("02_filtering", "with G = 16, the group size of the profile `tiny`", lambda m: m["group_size"] == 16),
    Claim(
        "02_filtering",
        "Hardly ever at p = 0.5, and in 44 of 100 groups at p = 0.05",
        lambda m: m["silent"]["0.5"][2] < 0.001 and round(100 * m["silent"]["0.05"][2]) == 44,
    ),
    Claim(
        "02_filtering",
        "With the published G = 8 it is 66 of 100.",
        lambda m: round(100 * m["silent"]["0.05"][1]) == 66,
    ),
    Claim(
        "02_filtering",
        "the larger the group, the wider that middle is",
        lambda m: all(own == sorted(own, reverse=True) for own in m["silent"].values()),
    ),
    Claim("02_filtering", "and the wrong letters differ", lambda m: len(set(m["wrong_letters"])) > 1),
    Claim(
        "02_filtering",
        "answers that work are right more often than those that glance",
        lambda m: share(m["habits"]["work"]) > share(m["habits"]["glance"]) + 0.1,
    ),
    Claim(
        "02_filtering",
        "By about two points, from 4 to between 2 and 3 of 100.",
        lambda m: near(m["no_signal"]["0 to 16"], 0.04, 0.01) and 0.02 < m["no_signal"]["1 to 12"] < 0.03,
        whole=True,
    ),
    Claim(
        "02_filtering",
        "The band of the paper, 1 to 7, hardly lowers it here",
        lambda m: near(m["no_signal"]["0 to 16"], m["no_signal"]["1 to 7"], 0.01),
        whole=True,
    ),
    Claim(
        "02_filtering",
        "With groups of 8, the published size, the profile's band saves three points",
        lambda m: near(more([m["no_signal_of_8"]["1 to 12"], m["no_signal_of_8"]["0 to 16"]]), 0.03, 0.01),
        whole=True,
    ),
    Claim(
        "02_filtering",
        "The kept questions are shuffled and then sorted from easy to hard",
        lambda m: all(m["order"][f"kept_{kind}"] == sorted(m["order"][f"kept_{kind}"], reverse=True) for kind in KINDS),
    ),
    Claim(
        "02_filtering",
        "Beside each kept set stands a *control* set of the same size that was not filtered.",
        lambda m: all(len(m["order"][f"kept_{kind}"]) == len(m["order"][f"control_{kind}"]) for kind in KINDS),
    ),
    Claim(
        "02_filtering",
        "the interval goes from 0.04 to 0.36",
        lambda m: [round(end, 2) for end in m["spans"]["2"]] == [0.04, 0.36],
    ),
    Claim(
        "02_filtering",
        "About half, and the decision is almost always the one that all sixteen would give.",
        lambda m: near(m["adaptive"]["0.05"][0], 0.5, 0.08) and m["adaptive"]["0.05"][1] > 0.97,
        whole=True,
    ),
    Claim(
        "02_filtering",
        "by some 20 points at k = 1, by less than one at k = 16, where guessing alone gives 99 %",
        lambda m: all(
            near(m["pass_at_k"][kind][0] - m["chance_at_k"][kind][0], 0.2, 0.06)
            and 0 < m["pass_at_k"][kind][15] - m["chance_at_k"][kind][15] < 0.01
            and round(100 * m["chance_at_k"][kind][15]) == 99
            for kind in KINDS
        ),
        whole=True,
    ),
    Claim(
        "02_filtering",
        "a question that is always right and one that is (almost) never right",
        lambda m: m["extremes"][0] == 16 and m["extremes"][1] <= 1,
        whole=True,
    ),
    # 03
    Claim(
        "03_sft",
        "It does: without it the model would never learn to stop.",
        lambda m: m["last_with_loss"] == ["</answer>", "<|im_end|>"],
    ),
    Claim("03_sft", "get the number that the model itself computes", lambda m: near(*m["loss_by_hand"], 1e-4)),
    Claim("03_sft", "costs nearly nothing", lambda m: m["hardest"][2] < 0.05 * m["hardest"][1]),
    Claim("03_sft", "The dearest token is the first word of the working", lambda m: m["hardest_is_the_first_word"]),
    Claim("03_sft", "Six tokens carry nearly all of the loss.", lambda m: m["hardest"][0] > 0.8 * m["hardest"][1]),
    Claim(
        "03_sft",
        "16 bytes a weight, so 48 GB; and 112 GB for 7 billion",
        lambda m: [round(gigabytes) for gigabytes in m["memory"]["float32, all weights"][1:]] == [48, 112],
    ),
    Claim(
        "03_sft",
        "With NF4 and LoRA it is about 2 and 5.",
        lambda m: [round(gigabytes) for gigabytes in m["memory"]["NF4 + LoRA"][1:]] == [2, 5],
    ),
    Claim(
        "03_sft",
        "It starts low and falls to less than a fifth",
        lambda m: m["first_loss"] < 0.2 and m["last_loss"] < m["first_loss"] / 5,
        whole=True,
    ),
    Claim(
        "03_sft",
        "Yes, here: by some 20 points, and the interval lies above 0.",
        lambda m: (
            near(more([m["validation_accuracy"]["base"], m["validation_accuracy"]["sft_text"]]), 0.2, 0.08)
            and m["gain_interval"][0] > 0
        ),
        whole=True,
    ),
    Claim(
        "03_sft",
        "on the two text families it was trained on, the model now works instead of glancing",
        lambda m: all(more(m["families"][name]["tokens"]) > 15 for name in ("curb65", "apgar")),
        whole=True,
    ),
    Claim(
        "03_sft",
        "Only the student's own style lifts it far above the base.",
        lambda m: (
            m["styles"]["own, clean"]["against_base"]["low"] > 0.2
            and all(
                own["against_base"]["high"] < -0.1 for name, own in m["styles"].items() if not name.startswith("own")
            )
        ),
    ),
    Claim(
        "03_sft",
        "takes it down to about what guessing gives (three in ten)",
        lambda m: all(near(m["styles"][name]["accuracy"], 0.3, 0.05) for name in ("foreign, clean", "terse, clean")),
    ),
    Claim(
        "03_sft",
        "cost far less than a foreign style",
        lambda m: lost(m, "own, noisy") < 0.1 and lost(m, "foreign, clean") > 0.4,
    ),
    Claim(
        "03_sft",
        "`terse, noisy` equals `terse, clean`",
        lambda m: m["styles"]["terse, noisy"]["accuracies"] == m["styles"]["terse, clean"]["accuracies"],
    ),
    # 04
    Claim("04_grpo", "1, 0, 0, 1 and 0, 0, 1, 1.", lambda m: m["rewards_shown"] == [1, 0, 0, 1, 0, 0, 1, 1]),
    Claim(
        "04_grpo",
        "so +0.87, −0.87, −0.87, +0.87",
        lambda m: [round(a, 2) for a in m["four_advantages"]] == [0.87, -0.87, -0.87, 0.87],
    ),
    Claim(
        "04_grpo",
        "fewer than half are right, so a right one's",
        lambda m: 0 < m["right_of_16"] < 8 and max(m["advantages"]) > -min(m["advantages"]) > 0,
    ),
    Claim("04_grpo", "All advantages sum to zero", lambda m: near(sum(m["advantages"]), 0, 0.02)),
    Claim(
        "04_grpo",
        "B rises, and what it gains the others lose, most where most was.",
        lambda m: (
            m["letters"]["after"][1] > m["letters"]["before"][1] + 0.2
            and max((0, 2, 3), key=lambda i: m["letters"]["before"][i] - m["letters"]["after"][i])
            == max((0, 2, 3), key=m["letters"]["before"].__getitem__)
        ),
    ),
    Claim(
        "04_grpo",
        "+0.7, +1, 0 for A = +1; 0, −1, −1.3 for A = −1.",
        lambda m: [round(slope, 3) for slope in m["slopes"].values()] == [0.7, 1, 0, 0, -1, -1.3],
    ),
    Claim(
        "04_grpo",
        "every ratio is 1, nothing is clipped, $k_3$ is 0",
        lambda m: m["updates"][0]["ratios"] == [1, 1] and m["updates"][0]["clipped"] == m["updates"][0]["kl"] == 0,
    ),
    Claim("04_grpo", "The loss is near 0", lambda m: near(m["updates"][0]["loss"], 0, 0.2)),
    Claim(
        "04_grpo",
        "exactly 0 where every completion weighs alike",
        lambda m: near(m["updates"][0]["loss, grpo"], 0, 1e-5) and not near(m["updates"][0]["loss"], 0, 1e-3),
    ),
    Claim("04_grpo", "The gradient is not 0", lambda m: m["updates"][0]["gradient norm"] > 0.05),
    Claim(
        "04_grpo",
        "Then ratios spread, tokens leave the clip range",
        lambda m: (
            m["updates"][3]["ratios"][0] < 0.8
            and m["updates"][3]["ratios"][1] > 1.2
            and m["updates"][3]["clipped"] > 0.01
        ),
    ),
    Claim(
        "04_grpo",
        "never negative as $e^d \\ge 1 + d$, grows",
        lambda m: min(u["kl"] for u in m["updates"]) == 0 and rises([u["kl"] for u in m["updates"]], 1e-4),
    ),
    Claim(
        "04_grpo",
        "Yes, here: working takes tokens",
        lambda m: mean(m["lengths"][-5:]) > mean(m["lengths"][:5]) + 10,
        True,
    ),
    Claim(
        "04_grpo",
        "With the reward rises the share of groups whose rewards are all equal",
        lambda m: (
            m["last_rewards"] > m["first_rewards"] + 0.2
            and mean(m["silent_groups"][-5:]) > mean(m["silent_groups"][:5]) + 0.1
        ),
        whole=True,
    ),
    Claim(
        "04_grpo",
        "A dip late in the curve is not yet a loss of skill. Each step asks eight other questions",
        lambda m: 0 <= m["dip"][0] - m["dip"][1] < 0.15 and m["dip"][2] > 0.03,
        whole=True,
    ),
    Claim(
        "04_grpo",
        "the intervals overlap widely",
        lambda m: max(low for low, _ in m["checks"][1:]) < min(high for _, high in m["checks"][1:]) - 0.1,
        whole=True,
    ),
    Claim(
        "04_grpo",
        "The text families, which it was trained on; their answers grow longer.",
        lambda m: (
            mean(more(f["right"]) for f in trained(m, True)) > mean(more(f["right"]) for f in trained(m, False))
            and all(more(f["tokens"]) > 10 for f in trained(m, True))
        ),
        whole=True,
    ),
    Claim(
        "04_grpo",
        "**Rate too high** (0, 0, 0): after two or three steps the form is lost.",
        lambda m: m["ablations"]["rate too high"]["end"] < 0.1,
    ),
    Claim(
        "04_grpo",
        "two answers agree about as often as not",
        lambda m: (
            near(m["ablations"]["groups of 2"]["without_signal"], 0.5, 0.15)
            and rises(m["ablations"]["groups of 2"]["rewards"], 0.15)
        ),
    ),
    Claim(
        "04_grpo",
        "no clear effect at this size",
        lambda m: rises(m["ablations"]["unfiltered"]["rewards"], 0.1),
    ),
    Claim(
        "04_grpo",
        "the policy stays nearer to its start and learns less",
        lambda m: (
            m["ablations"]["KL on"]["kl"] < 0.7 * m["ablations"]["healthy"]["kl"]
            and m["ablations"]["KL on"]["end"] < m["ablations"]["healthy"]["end"] - 0.1
        ),
    ),
    # 05
    Claim(
        "05_eval",
        "All call the first right, and only the tolerant one calls all five right.",
        lambda m: (
            m["verdicts"][0] == [1, 1, 1, 1]
            and [all(own) for own in zip(*m["verdicts"], strict=True)] == [False, False, False, True]
        ),
    ),
    Claim(
        "05_eval",
        "so a full stop decides between the fourth answer and the fifth",
        lambda m: m["verdicts"][3][2] == 1 and m["verdicts"][4][2] == 0,
    ),
    Claim("05_eval", "Nearly twice as wide.", lambda m: 1.5 < m["clusters"]["of_answers"] < 2.2),
    Claim("05_eval", "Here the two hardly differ", lambda m: near(m["clusters"]["of_pictures"], 1, 0.15)),
    Claim(
        "05_eval",
        "The test cannot tell the two apart: the interval holds 0, paired as well.",
        lambda m: all(abs(last_pair(m)["difference"]) < last_pair(m)[kind] for kind in ("unpaired", "paired")),
        whole=True,
    ),
    Claim(
        "05_eval",
        "Pairing makes it narrower by about a third, as much as twice the questions would have done.",
        lambda m: near(gain_of_pairing(last_pair(m)), 0.33, 0.1) and (1 - gain_of_pairing(last_pair(m))) ** -2 > 1.6,
        whole=True,
    ),
    Claim(
        "05_eval",
        "It gains least where ρ is smallest: for RL against the base.",
        lambda m: (
            min(m["pairs"], key=lambda name: gain_of_pairing(m["pairs"][name]))
            == min(m["pairs"], key=lambda name: m["pairs"][name]["alike"])
            == "rl_text − base"
        ),
    ),
    Claim("05_eval", "Ten points. Many differences", lambda m: round(m["detectable"]["VQA-RAD, closed"]) == 10),
    Claim(
        "05_eval",
        "it goes from −1.2 to +3.9, so the table cannot tell",
        lambda m: [round(x, 1) for x in m["published"]["Avg"]] == [1.4, -1.2, 3.9],
    ),
    Claim(
        "05_eval",
        "+1.38 would be clear only if the two models' verdicts correlated by more than 0.7; in section 4 yours and the "
        "base's did so by far less.",
        lambda m: (
            round(m["needed"], 1) == 0.7
            and all(pair["alike"] < 0.6 for name, pair in m["pairs"].items() if name.endswith("base"))
        ),
    ),
    Claim(
        "05_eval",
        "VQA-RAD's accuracy is known to about six points either way, and there RL is *below* the base by four: noise, "
        "too.",
        lambda m: round(m["published"]["VQA-RAD"][0]) == -4 and m["published"]["VQA-RAD"][2] > 0,
    ),
    Claim(
        "05_eval",
        "One set stands out, MedXpertQA-MM, and makes two thirds of the average gain.",
        lambda m: (
            [name for name, own in m["published"].items() if own[1] > 0] == ["MedXpertQA-MM"]
            and near(m["published"]["MedXpertQA-MM"][0] / 6 / m["published"]["Avg"][0], 2 / 3, 0.03)
        ),
    ),
    Claim(
        "05_eval",
        "SFT on the foreign traces of a text model costs much, and RL is far better than that. What does not: "
        "whether RL learns more from text or from pictures.",
        lambda m: all(
            m["verdicts_published"][f"{size} sft_text, {size} base"] == "differs"
            and m["verdicts_published"][f"{size} rl_text, {size} sft_text"] == "differs"
            and m["verdicts_published"][f"{size} rl_text, {size} rl_image"] == "cannot tell at this n"
            for size in ("3B", "7B")
        ),
    ),
    Claim(
        "05_eval",
        "The base falls to about chance without the right picture, and without thinking, too: it needs both.",
        lambda m: all(
            near(control(m, "base", name)["macro"], control(m, "base", name)["chance"], 0.13)
            for name in ("no picture", "grey picture", "another's picture", "no thinking")
        ),
    ),
    Claim(
        "05_eval",
        "The order of options changes little, so its answers follow the text and not the letter.",
        lambda m: (
            abs(control(m, "base", "options reordered")["change"]) < 0.12
            and control(m, "base", "options reordered")["same_text"]
            > control(m, "base", "options reordered")["same_letter"] + 0.3
        ),
    ),
    Claim(
        "05_eval",
        "A quarter of the tokens cuts answers off, and what is cut counts as wrong.",
        lambda m: (
            control(m, "base", "short budget")["truncated"] > 0.1 and control(m, "base", "short budget")["change"] < 0
        ),
    ),
    Claim(
        "05_eval",
        "With another question's picture the RL arm falls below chance.",
        lambda m: (
            control(m, "rl_text", "another's picture")["macro"] < control(m, "rl_text", "another's picture")["chance"]
            and control(m, "rl_text", "another's picture")["other_named"] > 0.5
        ),
        whole=True,
    ),
    Claim(
        "05_eval",
        "Part of the answers measure on grey, too, and hardly one of these is right.",
        lambda m: (
            all(
                asked > worked > 0.1 * asked and true <= 0.1 * worked
                for asked, worked, true in m["measured_on_grey"].values()
            )
            and "base" in m["measured_on_grey"]
        ),
    ),
    Claim(
        "05_eval",
        "Most of the base's errors are glances.",
        lambda m: all(glances(m, f"base {kind}") > 0.5 for kind in KINDS),
    ),
    Claim(
        "05_eval",
        "On text questions, which the arms were trained on, glances are gone",
        lambda m: all(m["errors"][f"{arm} text"]["glance"] <= 3 for arm in ("sft_text", "rl_text")),
        whole=True,
    ),
    Claim(
        "05_eval",
        "On pictures the trained arms still glance",
        lambda m: all(m["errors"][f"{arm} image"]["glance"] > 5 for arm in ("sft_text", "rl_text")),
        whole=True,
    ),
    # 06
    Claim(
        "06_analysis",
        "Published, at both sizes: RL on text is best, SFT on text is worst.",
        lambda m: all(
            (highest(m["recipes"][f"{size}, published"]), lowest(m["recipes"][f"{size}, published"]))
            == ("rl_text", "sft_text")
            for size in ("3B", "7B")
        ),
    ),
    Claim(
        "06_analysis",
        'In the study every arm of the column "own style" ends above the base, and best is the chain: SFT on text, '
        "then RL on pictures.",
        lambda m: (
            lowest(m["recipes"]["study, own style"]) == "base"
            and highest(m["recipes"]["study, own style"]) == "sft_text-rl_image"
        ),
    ),
    Claim(
        "06_analysis",
        "With a foreign teacher SFT alone ends below the base.",
        lambda m: all(
            m["recipes"]["study, foreign style"][arm] < m["recipes"]["study, own style"]["base"]
            for arm in ("sft_text", "sft_image")
        ),
    ),
    Claim(
        "06_analysis",
        "three seeds cannot tell whether a foreign teacher's text leaves the model worse",
        lambda m: judged(m, "SFT on the foreign teacher's text leaves the model worse")[1] == "cannot tell",
    ),
    Claim(
        "06_analysis",
        "from some 25 tokens to more than 50",
        lambda m: near(m["tokens"]["text"][0], 25, 5) and min(m["tokens"]["text"][1:]) > 50,
    ),
    Claim(
        "06_analysis",
        "On pictures they grew by less.",
        lambda m: all(
            image - m["tokens"]["image"][0] < text - m["tokens"]["text"][0]
            for text, image in zip(m["tokens"]["text"][1:], m["tokens"]["image"][1:], strict=True)
        ),
    ),
    Claim(
        "06_analysis",
        "The base states a working in about one answer of five, the trained arms in nearly all.",
        lambda m: (
            near(steps_of(m, "base", "text")["works"]["share"], 0.2, 0.07)
            and all(steps_of(m, arm, "text")["works"]["share"] > 0.9 for arm in m["arms"][1:])
        ),
    ),
    Claim("06_analysis", "the base's answers had the asked form already", lambda m: m["well_formed"]["base"] > 0.97),
    Claim(
        "06_analysis",
        "The letter nearly always follows from the stated steps",
        lambda m: all(steps_of(m, arm, "all")["follows"]["share"] > 0.93 for arm in m["arms"]),
    ),
    Claim(
        "06_analysis",
        "what is left is mostly a wrong rule, a thing seen wrong or a wrong letter; a sum is seldom wrong",
        lambda m: all(
            errors_of(steps_of(m, arm, "text"), "rule", "perception", "conclusion") > 0.8
            and errors_of(steps_of(m, arm, "text"), "arithmetic") < 0.2
            for arm in m["arms"][1:]
        ),
    ),
    Claim(
        "06_analysis",
        "On pictures they see things wrong, or still answer at a glance.",
        lambda m: all(
            errors_of(steps_of(m, arm, "image"), "perception", "glance") > 0.8
            and steps_of(m, arm, "image")["first_errors"]["perception"] > 0
            for arm in m["arms"][1:]
        ),
    ),
    Claim(
        "06_analysis",
        "with either kind of noise it ends below the base on the families that it was trained on, where clean labels "
        "had lifted it far above",
        lambda m: (
            all(m["noise"][f"rl_image {kind}"]["40"] < m["base_on_pictures"] for kind in ("random", "systematic"))
            and m["noise"]["rl_image random"]["0"] > m["base_on_pictures"] + 0.1
        ),
    ),
    Claim(
        "06_analysis",
        "SFT on labels that are wrong at random still ends above the base",
        lambda m: m["noise"]["sft_image random"]["40"] > m["base_on_pictures"] + 0.03,
    ),
    Claim(
        "06_analysis",
        "the same mistake made always can, and there SFT ends below, too",
        lambda m: m["noise"]["sft_image systematic"]["40"] < m["base_on_pictures"],
    ),
    Claim(
        "06_analysis",
        "With wrong labels at random RL loses more points than SFT, by the means",
        lambda m: all(
            lost_to_noise(m, "rl_image random", share) > lost_to_noise(m, "sft_image random", share)
            for share in ("40", "60")
        ),
    ),
    Claim(
        "06_analysis",
        "A third. The larger model starts higher and ends higher, and SFT on MRI answers does not help on CT and "
        "X-ray, where its last step ends far below RL.",
        lambda m: (
            found_here(m, "holds here")
            == {
                "The larger model starts higher",
                "The larger model ends higher",
                "SFT on MRI answers does not raise",
                "The last step of SFT on MRI answers does not raise",
                "On CT and X-ray RL on MRI beats the last step",
            }
            and len(m["of_papers"]) == 15
            and float(judged(m, "On CT and X-ray RL on MRI beats the last step")[0].split()[0]) > 20
        ),
    ),
    Claim(
        "06_analysis",
        "Three do not hold.",
        lambda m: len(found_here(m, "does not hold here")) == 3,
    ),
    Claim(
        "06_analysis",
        "RL on MRI does not raise accuracy on CT and X-ray, so it does not beat SFT there either",
        lambda m: {"RL on MRI raises", "On CT and X-ray RL on MRI beats SFT"} < found_here(m, "does not hold here"),
    ),
    Claim(
        "06_analysis",
        'All others end as "cannot tell".',
        lambda m: len(found_here(m, "cannot tell")) == len(m["of_papers"]) - 8,
    ),
    Claim(
        "06_analysis",
        "On pictures RL on text does not beat RL on pictures, which is ahead by some points",
        lambda m: (
            judged(m, "RL on text beats RL on pictures, on pictures")[1] == "does not hold here"
            and float(judged(m, "RL on text beats RL on pictures, on pictures")[0].split()[0]) < -2
        ),
    ),
    Claim(
        "06_analysis",
        "The means of three seeds fall clearly.",
        lambda m: min(own["0"] - own["40"] for own in m["noise"].values()) > 0.1,
    ),
]

# Folded answers that follow from the text and from no output, by how they begin.
REASONED = [
    "All advantages would be 0",  # 00
    "SFT raises the probability of given tokens",
    "The `\\n` in the middle is a backslash",  # 01
    "SFT imitates each wrong trace",
    "A narrower one",  # 02
    "To glance.",  # 03
    "Completions that work are right more often",  # 04
    "The grader, and whether it was the same for both",  # 05
    "Nothing in its training asked for that",  # 06
    "pass@1 rises, and pass@16 does not",
    "The interval knows the luck of the questions",
]
