"""Each check accepts the notebook's solution and two others, and answers typical mistakes with a line that helps."""

import math
import re
import statistics
from difflib import SequenceMatcher
from fractions import Fraction
from string import punctuation

import nbformat
import numpy as np
import pytest
import torch
from scipy import stats

from medvlt_lib.core.files import read_json
from medvlt_lib.core.sections import Grpo
from medvlt_lib.core.stats import accuracy_interval, holm, mcnemar
from medvlt_lib.core.stats import pass_at_k as library_pass_at_k
from medvlt_lib.course import checks
from medvlt_lib.course.breaking import RUNS as BREAKS
from medvlt_lib.course.breaking import WAYS, recorded
from medvlt_lib.course.breaking import trained as trained_broken
from medvlt_lib.course.curves import CAUSES, RUNS, trained
from medvlt_lib.course.lesson import NOTEBOOKS, RESULTS
from medvlt_lib.course.simulated import CONTROLLED, WORKING, in_other_ways, worked
from medvlt_lib.course.telling import NOTHING
from medvlt_lib.study.findings import decide
from medvlt_lib.training.by_hand import policy_loss


def cells() -> dict[str, dict[str, str]]:
    """The stub and the solution of every exercise by the name of its check."""
    found, now = {}, {}
    for path in sorted(NOTEBOOKS.glob("0[1-6]_*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            tags = cell.metadata.get("tags", [])
            if cell.cell_type == "code" and "exercise" in tags:
                now = {"stub": cell.source}
            elif "solution" in tags:
                now["solution"] = cell.source
            elif "check" in tags:
                found[re.match(r"checks\.(\w+)\(\w+\)$", cell.source)[1]] = now | {"check": cell.source}
    return found


CELLS = cells()


def said(capsys, check, answer) -> str:
    """The one line that a check prints."""
    check(answer)
    [line] = capsys.readouterr().out.splitlines()
    return line


def words_of(text: str) -> str:
    """A text without its punctuation, but for points inside numbers."""
    return " ".join(w.strip(punctuation) for w in text.lower().split())


def same_text(form):
    def copies(train, held_out):
        return {n for n, text in train.items() if any(form(text) == form(other) for other in held_out.values())}

    return copies


def alike(train, held_out):
    pairs = [(n, words_of(text), words_of(other)) for n, text in train.items() for other in held_out.values()]
    return {n for n, text, other in pairs if SequenceMatcher(None, text, other).ratio() > 0.9}


def solved(seen, noise, options):
    lowest = noise / (options - 1)
    if math.isclose(noise, 1 - 1 / options):
        return None
    return np.linalg.solve([[1 - noise - lowest]], [seen - lowest])[0]


def by_factorials(right, answers, k):
    f = math.factorial
    wrong = answers - right
    return 1 - f(wrong) / f(wrong - k) * f(answers - k) / f(answers)


def by_numpy(p, share):
    sizes = np.arange(2, 257)
    enough = sizes[p**sizes + (1 - p) ** sizes <= share]
    return enough[0] if len(enough) else None


def in_blocks(layers, rank):
    return sum(math.ceil(o * i / 64) * 36 for o, i in layers) + 16 * sum((o + i) * rank for o, i in layers)


def as_mask(names, before):
    """Labels from a regular expression over the row written as text."""

    def label_mask(ids, header, end):
        text = "".join(f"<{i}>" for i in ids)
        opening, closing = "".join(f"<{i}>" for i in header), f"<{end}>"
        labels = [-100] * len(ids)
        for found in re.finditer(f"{opening}((?:(?!{closing})<\\d+>)*(?:{closing})?)", text):
            first = text[: found.start(1)].count("<")
            for i in range(first, first + found[1].count("<")):
                labels[i] = ids[i]
        return names(labels) if names else labels[before:]

    return label_mask


def one_turn(ids, header, end):
    start = next(i for i in range(len(ids)) if ids[i : i + len(header)] == header) + len(header)
    return [-100] * start + ids[start:]


def without_header_check(ids, header, end):
    labels, on = [], False
    for token in ids:
        labels.append(token if on else -100)
        on = (on or token == header[-1]) and token != end
    return labels


def grpo(combine=torch.min, sign=-1, mean=None, ratio=lambda new, old: (new - old).exp(), gain=lambda a: a[:, None]):
    def loss(new, old, advantages, mask, eps):
        r, a = ratio(new, old), gain(advantages)
        term = combine(r * a, r.clamp(1 - eps, 1 + eps) * a)
        return sign * (mean(term, mask) if mean else term[mask].mean())

    return loss


def by_hand_s(new, old, advantages, mask, eps):
    settings = Grpo(learning_rate=1e-6, loss_type="dapo", epsilon=eps)
    return policy_loss(new, old, None, advantages, mask, settings)[0]


def by_loop(new, old, advantages, mask, eps):
    terms = []
    for i, a in enumerate(advantages):
        for t in range(int(mask[i].sum())):
            r = torch.exp(new[i, t] - old[i, t])
            held = (a > 0 and r > 1 + eps) or (a < 0 and r < 1 - eps)
            terms.append(a * (1 + eps if a > 0 else 1 - eps) + 0 * r if held else r * a)
    return -torch.stack(terms).mean()


def loops_of_groups(p, share):
    size = 2
    while size <= 256:
        if 1 - sum(math.comb(size, c) * p**c * (1 - p) ** (size - c) for c in range(1, size)) <= share + 1e-12:
            return size
        size += 1


def picture(shift=1, seen=True, kinds=True, take=lambda a: a, ratio=None, off=1e-4, sign=-1, pad=False, eps=None):
    """The loss with a picture, in one batch, with one thing done otherwise."""

    def picture_loss(model, prompt, answers, mask, old, rewards, width):
        size, length = answers.shape
        ids = torch.cat([prompt["input_ids"].repeat(size, 1), answers], 1)
        real = torch.cat([prompt["attention_mask"].repeat(size, 1), mask.long()], 1)
        types = torch.cat([prompt["mm_token_type_ids"].repeat(size, 1), 0 * answers], 1)
        rows = {"input_ids": ids, "attention_mask": real}
        rows |= {"mm_token_type_ids": types} if kinds else {}
        if seen:
            rows |= {"pixel_values": prompt["pixel_values"].repeat(size, 1)}
            rows |= {"image_grid_thw": prompt["image_grid_thw"].repeat(size, 1)}
        logits = take(model(**rows).logits)[:, ids.shape[1] - length - shift : ids.shape[1] - shift]
        new = torch.log_softmax(logits, -1).gather(2, answers.unsqueeze(2))[:, :, 0]
        r = (new - old).exp() if ratio is None else ratio(new, old)
        a = ((rewards - rewards.mean()) / (rewards.std() + off)).unsqueeze(1)
        bound = eps or width
        term = torch.minimum(r * a, r.clamp(1 - bound, 1 + bound) * a)
        return sign * (term.mean() if pad else (term * mask).sum() / mask.sum())

    return picture_loss


def one_by_one(model, prompt, answers, mask, old, rewards, eps):
    """The loss with a picture, a forward pass for each answer."""
    advantages, terms = (rewards - rewards.mean()) / (rewards.std() + 1e-4), []
    for answer, own, before, a in zip(answers, mask, old, advantages, strict=True):
        answer = answer[own][None]
        rows = dict(prompt) | {"input_ids": torch.cat([prompt["input_ids"], answer], 1)}
        rows["attention_mask"] = torch.ones_like(rows["input_ids"])
        rows["mm_token_type_ids"] = torch.cat([prompt["mm_token_type_ids"], torch.zeros_like(answer)], 1)
        logits = model(**rows).logits[0, prompt["input_ids"].shape[1] - 1 : -1]
        ratio = (logits.log_softmax(-1)[range(len(logits)), answer[0]] - before[own]).exp()
        terms.append(torch.minimum(ratio * a, ratio.clamp(1 - eps, 1 + eps) * a))
    return -torch.cat(terms).mean()


def without_repeating(model, prompt, answers, mask, old, rewards, eps):
    return one_by_one(model, {**prompt, "pixel_values": prompt["pixel_values"][:1]}, answers, mask, old, rewards, eps)


BROKEN = {run: way for run, (way, _) in BREAKS.items()}


def spread(gaps, reach=1.96, deviation=statistics.stdev, root=0.5):
    middle, half = statistics.fmean(gaps), reach * deviation(gaps) / len(gaps) ** root
    return middle - half, middle + half


def unpaired(before, after):
    half = 1.96 * math.hypot(*(statistics.stdev(side) / len(side) ** 0.5 for side in (before, after)))
    return statistics.fmean(after) - statistics.fmean(before) - half, half + np.mean(after) - np.mean(before)


def gaps_of(before, after):
    return [b - a for a, b in zip(before, after, strict=True)]


def by_fractions(before, after):
    gaps = [gap for gap in gaps_of(before, after) if gap]
    tail = sum(Fraction(math.comb(len(gaps), k), 2 ** len(gaps)) for k in range(min(map(gaps.count, (1, -1))) + 1))
    return float(min(1, 2 * tail))


def chi_square(before, after):
    _, _, gained, lost = 0, 0, gaps_of(before, after).count(1), gaps_of(before, after).count(-1)
    return stats.chi2.sf((gained - lost) ** 2 / (gained + lost), 1)


def one_sided(before, after):
    gained, lost, _ = mcnemar(before, after)
    return stats.binomtest(gained, gained + lost, alternative="greater").pvalue


def of_all(before, after):
    return stats.binomtest(gaps_of(before, after).count(1), len(before)).pvalue


def uncapped(before, after):
    gained, lost, _ = mcnemar(before, after)
    return 2 * sum(math.comb(gained + lost, k) for k in range(min(gained, lost) + 1)) / 2 ** (gained + lost)


def without_guard(before, after):
    gained, lost, _ = mcnemar(before, after)
    return stats.binomtest(gained, gained + lost).pvalue


def in_floats(before, after):
    gained, lost, _ = mcnemar(before, after)
    n = gained + lost
    return min(1.0, 2 * sum(math.comb(n, k) * 0.5**n for k in range(min(gained, lost) + 1)))


def by_trying(right, n):
    def contradicted(p):
        return abs(right / n - p) > 1.96 * math.sqrt(p * (1 - p) / n)

    ends = []
    for outer in (0.0, 1.0):
        a, b = outer, right / n
        for _ in range(60):
            a, b = ((a + b) / 2, b) if contradicted((a + b) / 2) else (a, (a + b) / 2)
        ends.append(b)
    return ends


def wald(right, n, z=1.96):
    half = z * math.sqrt(right / n * (1 - right / n) / n)
    return right / n - half, right / n + half


def stepping(p_values, level=0.05):
    decided, going = [False] * len(p_values), True
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        going = going and p_values[index] < level / (len(p_values) - place)
        decided[index] = going
    return decided


def t_interval(differences):
    own = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    return [own.low, own.high]


CONTROL_CAUSE = {name: cause for name, (cause, _) in CONTROLLED.items()}
WORKING_CAUSE = {name: cause for name, (cause, _) in WORKING.items()}
CAUSE = {run: cause for run, (cause, _) in RUNS.items()}
REST = r"[^}]*"
# Of each check: two other right answers; and wrong ones, each with a word of the line that it must get.
ANSWERS = {
    "copies": (
        [same_text(words_of), lambda a, b: [n for n in a if words_of(a[n]) in set(map(words_of, b.values()))]],
        [
            (same_text(str), "capitals"),
            (same_text(str.lower), "spaces"),
            (same_text(lambda t: t.lower().split()), "punctuation"),
            (same_text(lambda t: re.sub(r"[^\w ]", "", " ".join(t.lower().split()))), "7.5"),
            (same_text(lambda t: sorted(words_of(t).split())), "order"),
            (same_text(lambda t: re.sub(r"[^a-z]", "", t.lower())), "number"),
            (lambda a, b: {n for n in a if n in b}, "equals"),
            (lambda a, b: {n for n in a if any(words_of(o) in words_of(a[n]) for o in b.values())}, "says more"),
            (alike, "number"),
        ],
    ),
    "boxed_letter": (
        [
            lambda t: (
                (m := re.search(rf".*\\boxed{{\s*(?:([A-Ea-e])\s*(?:[.):]{REST})?|{REST})}}", t, re.DOTALL))
                and m[1]
                and m[1].upper()
            ),
            lambda t: (
                w[0].upper()
                if "\\boxed{" in t
                and (w := re.split(r"[.):]", t.split("\\boxed{")[-1].split("}")[0])[0].strip()) in [*"ABCDEabcde"]
                else None
            ),
        ],
        [
            (lambda t: "B", "lower-case"),
            (lambda t: (m := re.search(r"\\boxed\{([A-E])\}", t)) and m[1], "lower-case"),
            (lambda t: (m := re.search(r"\\boxed\{([A-Ea-e])\}", t)) and m[1].upper(), "Spaces"),
            (lambda t: (m := re.search(r"\\boxed\{\s*([A-Ea-e])\s*\}", t)) and m[1].upper(), "last box"),
            (lambda t: (m := re.findall(r"\\boxed\{\s*([A-Ea-e])", t)) and m[-1].upper(), "word that begins"),
            (lambda t: (m := re.findall(r"\\boxed\{\s*([A-Ea-e])\b", t) or [None]) and m[-1] and m[-1].upper(), "Two"),
            (lambda t: t.split("{")[1][0], "lower case|lower-case"),
        ],
    ),
    "true_accuracy": (
        [
            lambda s, e, k: None if e * k == k - 1 else ((k - 1) * s - e) / (k - 1 - e * k),
            solved,
        ],
        [
            (lambda s, e, k: s, "formula"),
            (lambda s, e, k: s / (1 - e), "formula"),
            (lambda s, e, k: (s - e / 3) / (1 - e - e / 3), "Fewer options"),
            (lambda s, e, k: (s - e / (k - 1)) / (1 - e - e / (k - 1)), "ZeroDivisionError"),
            (lambda s, e, k: (s - e / k) / (1 - e - e / k), "formula"),
            (lambda s, e, k: max(0, s - e), "formula"),
            (lambda s, e, k: None if e >= 1 - 1 / k else (s - e / (k - 1)) / (1 - e - e / (k - 1)), "negative"),
        ],
    ),
    "keep": (
        [
            lambda c, a, b: [n for n, _ in sorted(c.items(), key=lambda x: -x[1]) if a <= c[n] <= b],
            lambda c, a, b: [n for k in range(b, a - 1, -1) for n in c if c[n] == k],
        ],
        [
            (lambda c, a, b: list(c), "inside"),
            (lambda c, a, b: [n for n in c if a <= c[n] < b], "upper end"),
            (lambda c, a, b: [n for n in c if a < c[n] <= b], "lower end"),
            (lambda c, a, b: sorted((n for n in c if a <= c[n] <= b), key=c.get), "Easy"),
            (lambda c, a, b: [n for n in c if a <= c[n] <= b], "Easy"),
            (lambda c, a, b: sorted((n for n in c if a <= c[n] <= b), key=c.get)[::-1], "in their order"),
            (lambda c, a, b: sorted((n for n in c if c[n] and a <= c[n] <= b), key=lambda n: -c[n]), "0"),
        ],
    ),
    "pass_at_k": (
        [
            library_pass_at_k,
            lambda c, n, k: 1.0 if n - c < k else 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)),
        ],
        [
            (lambda c, n, k: 1 - (1 - c / n) ** k, "without putting"),
            (lambda c, n, k: c / n, "without putting|drawn"),
            (lambda c, n, k: math.comb(n - c, k) / math.comb(n, k), "One draw"),
            (lambda c, n, k: min(1, k * c / n), "wrong answers alone"),
            (lambda c, n, k: 1 - math.prod((n - c - i) / (n - i) for i in range(k - 1)), "One draw"),
            (by_factorials, "fewer than k"),
        ],
    ),
    "smallest_group": (
        [
            loops_of_groups,
            by_numpy,
        ],
        [
            (lambda p, s: next((g for g in range(2, 257) if (1 - p) ** g <= s), None), "Groups|groups"),
            (lambda p, s: next((g for g in range(2, 257) if p**g + (1 - p) ** g < s), None), "just reached"),
            (lambda p, s: next((g for g in range(1, 257) if p**g + (1 - p) ** g <= s), None), "begin at 2"),
            (lambda p, s: next(g for g in range(2, 257) if p**g + (1 - p) ** g <= s), "StopIteration"),
            (lambda p, s: next((g for g in range(2, 2000) if p**g + (1 - p) ** g <= s), None), "256"),
            (lambda p, s: max(2, math.ceil(math.log(s) / math.log(0.5))) if 0 < p < 1 else None, "where does it"),
        ],
    ),
    "label_mask": (
        [as_mask(tuple, 0), as_mask(np.array, 0)],
        [
            (lambda ids, h, e: list(ids), "The header"),
            (as_mask(None, 1), "as many labels"),
            (as_mask(lambda labels: [*labels[1:], -100], 0), "closing|own token's|header"),
            (lambda ids, h, e: [t if t != e else -100 for t in as_mask(list, 0)(ids, h, e)], "stop"),
            (one_turn, "Padding"),
            (lambda ids, h, e: as_mask(list, 0)(ids, h, e)[:8] + [-100] * len(ids[8:]), "stop"),
            (without_header_check, "opens no turn"),
            (lambda ids, h, e: as_mask(list, 0)(ids, [1, 2], 3), "longer"),
            (lambda ids, h, e: [0 if t == -100 else t for t in as_mask(list, 0)(ids, h, e)], "header"),
        ],
    ),
    "qlora_bytes": (
        [
            lambda layers, r: sum(o * i / 2 + o * i / 16 + 16 * r * o + 16 * r * i for o, i in layers),
            in_blocks,
        ],
        [
            (lambda layers, r: sum(o * i / 2 + 16 * r * (o + i) for o, i in layers), "NF4"),
            (lambda layers, r: sum(4 * o * i + 16 * r * (o + i) for o, i in layers), "NF4"),
            (lambda layers, r: sum(o * i * 0.5625 + 12 * r * (o + i) for o, i in layers), "adapter"),
            (lambda layers, r: sum(o * i * 0.5625 + 16 * r * o * i for o, i in layers), "adapter"),
            (lambda layers, r: sum(o * i * 0.5625 + 16 * r * 2 * i for o, i in layers), "outputs than inputs"),
            (lambda layers, r: sum(o * i * 0.5625 for o, i in layers), "adapter"),
            (lambda layers, r: sum(o * i * 0.5625 + (16 * (o + i) if r else 0) for o, i in layers), "rank"),
        ],
    ),
    "whole_loss": (
        [
            lambda parts: np.average([m for m, n in parts if n], weights=[n for _, n in parts if n]),
            lambda parts: statistics.fmean([m for m, n in parts for _ in range(n)]),
        ],
        [
            (lambda parts: statistics.fmean(m for m, _ in parts), "Every token"),
            (lambda parts: sum(m for m, _ in parts), "not a sum"),
            (lambda parts: sum(m * n for m, n in parts) / sum(n for _, n in parts), "nan"),
            (lambda parts: sum(m * n for m, n in parts), "whole batch"),
            (lambda parts: statistics.fmean(m for m, n in parts if n), "Every token"),
            (lambda parts: max(m for m, _ in parts), "Parts of equal size"),
        ],
    ),
    "advantages": (
        [
            lambda r: (np.array(r) - np.mean(r)) / (np.std(r, ddof=1) + 1e-8),
            lambda r: [0.0 if len(set(r)) == 1 else (x - sum(r) / len(r)) / statistics.stdev(r) for x in r],
        ],
        [
            (lambda r: (np.array(r) - np.mean(r)) / (np.std(r) + 1e-4), "n - 1"),
            (lambda r: [x - sum(r) / len(r) for x in r], "n - 1"),
            (lambda r: [x / (statistics.stdev(r) + 1e-4) for x in r], "sum to 0"),
            (lambda r: [-(x - sum(r) / len(r)) / (statistics.stdev(r) + 1e-4) for x in r], "right one up"),
            (lambda r: [(x - sum(r) / len(r)) / statistics.stdev(r) for x in r], "ZeroDivisionError"),
            (lambda r: (statistics.mean(r), statistics.stdev(r)), "one advantage"),
            (lambda r: [2 * x - 1 for x in r], "sum to 0|n - 1"),
        ],
    ),
    "clipped": (
        [
            lambda r, a, e: min(r, 1 + e) * a if a > 0 else max(r, 1 - e) * a,
            lambda r, a, e: torch.min(torch.tensor(r * a), torch.tensor(r).clamp(1 - e, 1 + e) * a),
        ],
        [
            (lambda r, a, e: float(np.clip(r, 1 - e, 1 + e)) * a, "below the range"),
            (lambda r, a, e: r * a, "upper end"),
            (lambda r, a, e: max(r * a, float(np.clip(r, 1 - e, 1 + e)) * a), "upper end"),
            (lambda r, a, e: -min(r * a, float(np.clip(r, 1 - e, 1 + e)) * a), "no minus"),
            (lambda r, a, e: min(r, 1 + e) * a, "lower end"),
            (lambda r, a, e: min(r * a, float(np.clip(r, 0.8, 1.2)) * a), "argument"),
            (lambda r, a, e: min(r, float(np.clip(r, 1 - e, 1 + e))) * a, "lower end"),
        ],
    ),
    "grpo_loss": (
        [
            by_loop,
            by_hand_s,
        ],
        [
            (grpo(sign=1), "goes down"),
            (grpo(mean=lambda t, m: (t * m).mean()), "padding"),
            (grpo(mean=lambda t, m: ((t * m).sum(1) / m.sum(1)).mean()), "real tokens"),
            (grpo(combine=torch.max), "Ratios outside"),
            (grpo(combine=lambda x, y: x), "Ratios outside"),
            (grpo(combine=lambda x, y: y), "Ratios outside"),
            (grpo(ratio=lambda n, o: n - o + 1), "inside the range"),
            (grpo(ratio=lambda n, o: (o - n).exp()), "inside the range"),
            (grpo(ratio=lambda n, o: (n.detach() - o).exp()), "gradient"),
            (grpo(ratio=lambda n, o: n.exp()), "goes down"),
            (lambda n, o, a, m, e: grpo()(n, o, a, m, 0.2), "width"),
        ],
    ),
    "picture_loss": (
        [picture(), one_by_one],
        [
            (picture(shift=0), "Which logit"),
            (picture(seen=False), "picture"),
            (picture(kinds=False), "picture"),
            (without_repeating, "picture"),
            (picture(sign=1), "Which logit|picture"),
            (picture(pad=True), "answer"),
            (picture(off=1.0), "answer"),
            (picture(ratio=lambda n, o: n.exp()), "answer"),
            (picture(take=torch.Tensor.detach), "gradient|answer"),
            (picture(eps=0.2), "width"),
            (picture(ratio=lambda n, o: n - o + 1), "Ratios outside"),
        ],
    ),
    "broken": (
        [dict(reversed(BROKEN.items())), BROKEN | {"F": "healthy"}],
        [
            (BROKEN | {"A": "healthy", "D": "label noise"}, r"\bA(: | is not)"),
            (BROKEN | {"A": "no chat template", "E": "label noise"}, r"\bA(: | is not)"),
            (BROKEN | {"B": "label noise"}, r"\bB(: | is not)"),
            (BROKEN | {"C": "no chat template"}, r"\bC(: | is not)"),
            (BROKEN | {"E": "noise"}, "they are healthy"),
            (BROKEN | {"D": None}, r"\bD(: | is not)"),
            (["healthy"], "dictionary"),
        ],
    ),
    "curves": (
        [dict(reversed(CAUSE.items())), CAUSE | {"F": "healthy"}],
        [
            (CAUSE | {"A": "healthy"}, r"\bA(: | is not)"),
            (CAUSE | {"B": "healthy", "C": "another thing rewarded"}, r"\bB(: | is not)"),
            (CAUSE | {"D": "rate too high", "E": "all rewards equal"}, r"\bD(: | is not)"),
            (CAUSE | {"E": "too fast"}, "they are healthy"),
            (CAUSE | {"C": None}, r"\bC(: | is not)"),
            ("healthy", "dictionary"),
        ],
    ),
    "paired_interval": (
        [
            lambda a, b: spread(gaps_of(a, b)),
            lambda a, b: np.mean(np.subtract(b, a)) + np.array([-1.96, 1.96]) * stats.sem(np.subtract(b, a)),
        ],
        [
            (unpaired, "first"),
            (lambda a, b: spread(gaps_of(b, a)), "after minus before"),
            (lambda a, b: spread(gaps_of(a, b), deviation=statistics.pstdev), "n - 1"),
            (lambda a, b: spread(gaps_of(a, b), reach=1), "The width"),
            (lambda a, b: spread(gaps_of(a, b), root=1), "what divides"),
            (lambda a, b: spread(gaps_of(a, b))[::-1], "lower end"),
            (lambda a, b: spread([100 * gap for gap in gaps_of(a, b)]), "as a share"),
            (lambda a, b: statistics.fmean(gaps_of(a, b)), "Two numbers"),
        ],
    ),
    "mcnemar_p": (
        [
            by_fractions,
            lambda a, b: mcnemar(a, b)[2],
        ],
        [
            (chi_square, "so few losses"),
            (one_sided, "Both sides"),
            (of_all, "say nothing"),
            (uncapped, "above 1"),
            (in_floats, "Large"),
            (without_guard, "ValueError"),
            (lambda a, b: stats.ttest_rel(b, a).pvalue, "so few losses"),
        ],
    ),
    "looks": (
        [dict(reversed(CONTROL_CAUSE.items())), CONTROL_CAUSE | {"F": "guesses"}],
        [
            (CONTROL_CAUSE | {"A": "looks at the picture"}, "A is not"),
            (
                CONTROL_CAUSE | {"B": "looks at the picture", "C": "knows the pictures by heart"},
                "same text or the same",
            ),
            (CONTROL_CAUSE | {"D": "blind"}, "none of the names"),
            (CONTROL_CAUSE | {"E": "guesses"}, "single row"),
            (CONTROL_CAUSE | {"C": None}, "C: None"),
            (["guesses"], "dictionary"),
        ],
    ),
    "wilson": (
        [
            accuracy_interval,
            by_trying,
        ],
        [
            (wald, "share p that is tried"),
            (lambda c, n: [min(1, max(0, end)) for end in wald(c, n)], "share p that is tried"),
            (lambda c, n: accuracy_interval(c, n, 0.9), "share p that is tried"),
            (lambda c, n: wald(c + 2, n + 4), "share p that is tried"),
            (lambda c, n: [100 * end for end in accuracy_interval(c, n)], "share p that is tried"),
            (lambda c, n: (c / n, c / n), "share p that is tried"),
        ],
    ),
    "verdict": (
        [
            lambda mean, low, high, p, matters: decide("more", mean, high, p, matters),
            lambda m, a, b, p, d: (["cannot tell", "does not hold here"][b < d], "holds here")[m > 0 and p < 0.05],
        ],
        [
            (lambda m, a, b, p, d: "holds here" if a > 0 else "does not hold here" if b < d else "cannot tell", "Holm"),
            (lambda m, a, b, p, d: "holds here" if p < 0.05 else decide("more", m, b, p, d), "direction"),
            (lambda m, a, b, p, d: "does not hold here" if b < d else decide("more", m, b, p, d), "first"),
            (lambda m, a, b, p, d: decide("more", m, m, p, d), "reaches beyond"),
            (lambda m, a, b, p, d: decide("more", m, b, p, 0.03), "argument"),
            (lambda m, a, b, p, d: "holds here" if m > 0 and p < 0.05 else "does not hold here", "Neither"),
            (lambda m, a, b, p, d: decide("more", m, b, p - 1e-9, d), "0.05 is not below"),
        ],
    ),
    "holm": (
        [
            stepping,
            lambda p: [adjusted < 0.05 for adjusted in holm(p)],
        ],
        [
            (lambda p: [value < 0.05 for value in p], "Sort"),
            (lambda p: [value < 0.05 / len(p) for value in p], "grows"),
            (lambda p: [value < 0.05 / (len(p) - sorted(p).index(value)) for value in p], "After the first"),
            (lambda p: sorted(stepping(p), reverse=True), "order given"),
            (lambda p: [value * len(p) < 0.05 * (1 + sorted(p).index(value)) for value in p], "Sort"),
            (holm, "Sort"),
        ],
    ),
    "seed_interval": (
        [
            t_interval,
            lambda d: stats.t.interval(0.95, len(d) - 1, np.mean(d), stats.sem(d)),
        ],
        [
            (spread, "quantile"),
            (lambda d: spread(d, stats.t.ppf(0.975, len(d))), "quantile"),
            (lambda d: spread(d, stats.t.ppf(0.95, len(d) - 1)), "quantile"),
            (lambda d: spread(d, stats.t.ppf(0.975, len(d) - 1), statistics.pstdev), "n - 1"),
            (lambda d: spread(d, stats.t.ppf(0.975, len(d) - 1), root=0), "a root"),
            (lambda d: spread(d, 4.30265), "their number"),
            (lambda d: t_interval(d)[::-1], "Three seeds"),
        ],
    ),
    "working": (
        [dict(reversed(WORKING_CAUSE.items())), WORKING_CAUSE | {"F": "breaks off"}],
        [
            (WORKING_CAUSE | {"A": "sees it wrong", "B": "adds up wrongly"}, "which steps are false"),
            (WORKING_CAUSE | {"B": "adds up wrongly"}, "can be false alone"),
            (WORKING_CAUSE | {"C": "names another letter"}, "far more often"),
            (WORKING_CAUSE | {"D": "glances"}, "none of the names"),
            (WORKING_CAUSE | {"D": np.array(["breaks off", "guesses"])}, "none of the names"),
            (WORKING_CAUSE | {"E": "adds up wrongly"}, "are true"),
            ("sees it wrong", "dictionary"),
        ],
    ),
}
RIGHT = [(name, i) for name, (others, _) in ANSWERS.items() for i in range(len(others))]
WRONG = [(name, i) for name, (_, mistakes) in ANSWERS.items() for i in range(len(mistakes))]


def test_every_check_has_an_exercise_two_other_answers_and_four_mistakes():
    assert set(CELLS) == set(ANSWERS)
    assert all(len(others) == 2 and len(mistakes) >= 4 for others, mistakes in ANSWERS.values())


@pytest.mark.parametrize("name", ANSWERS)
def test_the_stub_is_nothing_yet_and_the_solution_is_right(name, capsys):
    here = {"checks": checks}
    exec(CELLS[name]["stub"], here)
    capsys.readouterr()
    exec(CELLS[name]["check"], here)
    assert capsys.readouterr().out == NOTHING + "\n"
    exec(CELLS[name]["solution"], here)
    exec(CELLS[name]["check"], here)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("Right. ")


@pytest.mark.parametrize(("name", "number"), RIGHT)
def test_another_right_answer_is_accepted(name, number, capsys):
    assert said(capsys, getattr(checks, name), ANSWERS[name][0][number]).startswith("Right. ")


@pytest.mark.parametrize(("name", "number"), WRONG)
def test_a_mistake_is_told_where_to_look(name, number, capsys):
    answer, words = ANSWERS[name][1][number]
    line = said(capsys, getattr(checks, name), answer)
    assert line.startswith("Not yet. ") and re.search(words, line) and len(line) < 300, line


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - {"curves", "broken", "looks", "working"}))
def test_what_is_no_answer_at_all_ends_in_one_kind_line(name, capsys):
    def not_written(*_):
        raise NotImplementedError

    def broken(*_):
        raise KeyError("a\nb")

    check = getattr(checks, name)
    for nothing in (None, not_written, lambda *_: None):
        assert said(capsys, check, nothing) == NOTHING
    assert "a function is asked for" in said(capsys, check, 3)
    assert "KeyError" in said(capsys, check, broken)
    for strange in ("?", [None] * 4, [None] * 10, np.zeros(()), [[]], {}, len):
        assert said(capsys, check, lambda *_, strange=strange: strange).startswith("Not yet. ")


def test_a_function_that_changes_its_arguments_is_told_so(capsys):
    def copies(train, held_out):
        return {name for name in list(train) if train.pop(name) in held_out.values()}

    assert "changes what it is given" in said(capsys, checks.copies, copies)


def test_the_curves_show_their_causes():
    runs = {CAUSE[run]: {name: np.array(values) for name, values in trained(run).items()} for run in RUNS}
    assert set(runs) == set(CAUSES)
    reward = {cause: (run["reward"][:5].mean(), run["reward"][-10:].mean()) for cause, run in runs.items()}
    right = {cause: (run["right answers"][:5].mean(), run["right answers"][-10:].mean()) for cause, run in runs.items()}
    assert reward["healthy"] == right["healthy"] and right["healthy"][1] > right["healthy"][0] + 0.3
    assert right["sign turned round"][1] < 0.05 < right["sign turned round"][0]
    other = "another thing rewarded"
    assert reward[other][1] > reward[other][0] + 0.3 and abs(right[other][1] - right[other][0]) < 0.1
    equal, fast = runs["all rewards equal"], runs["rate too high"]
    assert not equal["gradient norm"].any() and np.ptp(equal["entropy"]) < 1e-9 and equal["silent groups"].all()
    assert fast["entropy"][0] > 1.3 and fast["entropy"][2:].max() < 0.05 and fast["gradient norm"][0] > 0.1


def test_the_gradient_of_the_curves_is_that_of_torch(monkeypatch):
    """One step from weights 0: what the healthy run does to its policy is what autograd says of A log pi."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 12)) / 12**0.5
    gold = (features @ rng.normal(size=(12, 4))).argmax(1)
    asked = rng.choice(40, 8, replace=False)
    picks = np.array([rng.choice(4, 8, p=[0.25] * 4) for _ in asked])
    rewards = torch.tensor(picks == gold[asked][:, None], dtype=torch.float64)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    weights = torch.zeros(12, 4, dtype=torch.float64, requires_grad=True)
    log_p = torch.log_softmax(torch.tensor(features[asked]) @ weights, -1).gather(1, torch.tensor(picks))
    [gradient] = torch.autograd.grad((advantages * log_p).mean(), weights)
    assert trained("C", steps=1)["gradient norm"] == pytest.approx([gradient.norm().item()])


def test_the_breaks_show_what_the_exercise_says_of_them():
    head, *rows = recorded()
    shown = {BROKEN[row[0]]: dict(zip(head, row, strict=True)) for row in rows}
    assert set(shown) == set(WAYS) and "tokens" in shown["images expanded twice"]["stopped by"]
    number = {
        way: {k: float(v) for k, v in row.items() if v and k not in ("run", "stopped by")} for way, row in shown.items()
    }
    healthy, noise, plain, fast = (
        number[way] for way in ("healthy", "label noise", "no chat template", "rate too high")
    )
    form, rest, end, right = head[1:5]
    assert healthy[form] == noise[form] == fast[form] == 0 < plain[form]  # the form costs nothing in the usual prompt
    assert fast[rest] == healthy[rest] < noise[rest]
    assert noise[end] < noise[rest] / 3 and noise[right] < healthy[right] - 20  # the loss alone looks harmless
    assert fast[end] > 10 * fast[rest] and fast[right] == 0


def test_what_was_recorded_of_the_breaks_is_what_they_do():
    """A training of one step each: the first loss is the recorded one."""
    rows = read_json(RESULTS / "broken-tiny.json")["runs"]
    for way in ("images expanded twice", "no chat template"):
        seen = trained_broken(way, steps=1, asked=1)
        assert seen["error"] == rows[way]["error"]
        assert seen["losses"][:1] == pytest.approx(rows[way]["losses"][:1], rel=1e-3)


def test_the_made_up_models_show_their_causes():
    """What tells each from the others, by a wide margin; four options, so guessing gives 0.25."""
    asked = {cause: in_other_ways(name) for name, (cause, _) in CONTROLLED.items()}
    words, heart, looks = (
        asked[cause] for cause in ("answers from the words", "knows the pictures by heart", "looks at the picture")
    )
    assert words["as asked"] == words["no picture"] == words["another's picture"] > 0.6 and words["same text"] == 1
    assert looks["as asked"] > 0.8 > 0.35 > looks["no picture"] and looks["another's picture"] < 0.12
    assert looks["options reordered"] > 0.8 and looks["same text"] > 0.7 > 0.4 > looks["same letter"]
    assert heart["as asked"] > 0.8 and heart["another's picture"] < 0.12 and heart["options reordered"] < 0.35
    assert heart["same letter"] > 0.8 > 0.4 > heart["same text"]
    letter, guess = asked["prefers a letter"], asked["guesses"]
    assert min(letter[way] for way in ("as asked", "no picture", "another's picture")) > 0.42
    assert letter["options reordered"] < 0.35 and all(0.18 < share < 0.32 for share in guess.values())
    works = {cause: worked(name) for name, (cause, _) in WORKING.items()}
    flawed = pytest.approx(0.6, abs=0.08)
    assert {cause: list(own.values()) for cause, own in works.items()} == {
        "sees it wrong": [1, flawed, flawed, 1],
        "adds up wrongly": [1, flawed, flawed, flawed],
        "names another letter": [1, flawed, 1, flawed],
        "works only after a guess": [1, 1, flawed, flawed],
        "breaks off": [flawed, flawed, 1, 1],
    }
