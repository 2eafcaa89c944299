"""The tolerant grader's laws, on the embedded world's questions and, where MEDVLT_REAL_DATA names their folder (see
tests/pipeline/test_real_data.py), on more than 7,000 public ones."""

import gzip
import json
import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medvlt_lib.grading.grade import grade_response
from medvlt_lib.grading.tolerant import tolerant_answer
from medvlt_lib.phantom.questions import make_questions

FOLDER = os.environ.get("MEDVLT_REAL_DATA")
Options = dict[str, str]

# {k} is the letter, {t} the option's text.
IN_TAGS = [
    "<answer>{k}</answer>", "<answer>{k}.</answer>", "<answer>({k})</answer>", "<answer>{t}</answer>",
    "<answer>{k}. {t}</answer>", "<answer>{k}) {t}</answer>", "<answer>{k}: {t}</answer>", "<answer>({k}) {t}</answer>",
    "<answer>Option {k}</answer>", "<answer>{t} ({k})</answer>", "<answer>\n{k}. {t}\n</answer>",
    "<answer>The correct answer is {k}.</answer>", "<Answer>**{k}**</Answer>", "<final_answer>{k}</final_answer>",
    "<think>x</think>\n<answer>{k}</answer>", "<think>x <answer>{k}</answer>", "<think>x <answer>{k}. {t}</answer>",
]  # fmt: skip
CLOSED = [*IN_TAGS, "\\boxed{{{k}}}", "So $\\boxed{{\\text{{{k}}}}}$.", '{{"answer": "{k}"}}', "{{'answer': '{k}'}}"]
ENGLISH = [
    "The answer is {k}.", "The answer is ({k}).", "The answer is {k}. {t}", "The correct answer is {k}) {t}",
    "The correct option is {k}", "The answer is: {k}", "Answer: {k}", "**Answer:** {k}. {t}", "**Final Answer: {k}**",
    "Final Answer:\n\n{k}. {t}", "### Answer\n{k}. {t}", "The answer is therefore {k}.", "The best choice is {k}.",
    "The most likely diagnosis is {k}.", "I would choose option {k}.", "I'd go with {k}.", "I select {k}. {t}",
    "Option {k} is correct.", "{k} is the correct answer.", "({k}) {t} is the correct answer.", "Therefore, {k}.",
    "{k}", "({k})", "{k}) {t}", "{k}: {t}", "**{k}. {t}**", "{t} ({k})", "The film was read.\n\n{k}. {t}",
    "{k}, because the film shows it.", "The answer is {k} because the film shows it.", "{t}", "The answer is {t}.",
    "The answer is A? No wait, it's {k}.", "None of the others fits, so the answer is {k}.",
]  # fmt: skip
LANGUAGES = {
    "Spanish": ["La respuesta correcta es la {k}.", "Respuesta: {k}. {t}", "La opción {k} es correcta."],
    "Portuguese": ["A resposta correta é a letra {k}.", "Resposta: {k}) {t}", "A alternativa {k} está correta."],
    "French": ["La bonne réponse est la {k}.", "Réponse : {k}. {t}", "La réponse correcte est {k}."],
    "German": ["Die richtige Antwort ist {k}.", "Antwort: {k}) {t}", "Die Antwort lautet {k}."],
    "Italian": ["La risposta corretta è la {k}.", "Risposta: {k}. {t}", "La risposta è {k}."],
    "Chinese": [
        "答案是{k}。",
        "正确答案：{k}. {t}",
        "因此，正确答案是{k}，因为片子如此。",
        "故选{k}。",
        "选项{k}是正确的。",
    ],
    "Japanese": ["正解は{k}です。", "答え：{k}. {t}", "{k}が正解です。"],
    "Korean": ["정답은 {k}입니다.", "정답: {k}. {t}", "{k}가 정답입니다."],
}
STATEMENTS = [*ENGLISH, *(form for forms in LANGUAGES.values() for form in forms)]
DENIALS = [
    "Not {k}", "The answer is not {k}.", "The answer is not {k}. {t}", "{k} is incorrect.", "{k}. {t} is incorrect.",
    "Option {k} is wrong.", "<answer>not {k}</answer>", "<answer>{k}. Incorrect</answer>", "{k}: wrong",
    "I do not think the answer is {k}.", "I would not choose {k}.", "The answer cannot be {k}.",
    "The answer isn't {k}.",
    "The answer is {k}. That is wrong.", "<answer>{k}</answer> No, that is wrong.", "If the answer is {k}, we wait.",
    "Is the answer {k}?", "The answer could be {k}.",
]  # fmt: skip
LISTS = [
    "{lines}", "{inline}", "{parenthesised}", "Here are the answer choices:\n{lines}", "Options: {inline}",
    "Let's go through each option:\n{lines}", "Answer choices: {inline}",
    "{parenthesised}\nAnswer: (option not available)",
]  # fmt: skip
APPENDED = [
    "\n\nQuestion: Which of these is a vitamin?\nA. Retinol\nB. Iron\nC. Zinc\nAnswer: {other}",
    "\n\nQ: And now?\nA: {other}", "\n\nQuestion 2: Which one?\nThe answer is {other}.", "\n\n{lines}",
    "\n\nThe options were: {inline}", "<|im_end|>\n<|im_start|>user\nThe answer is {other}.",
]  # fmt: skip


def lists_of(options: Options) -> dict[str, str]:
    """The options said again, in several layouts."""
    return {
        "lines": "\n".join(f"{k}. {t}" for k, t in options.items()),
        "inline": " ".join(f"{k}. {t}" for k, t in options.items()),
        "parenthesised": " ".join(f"({k}) {t}" for k, t in options.items()),
    }


def clear(options: Options) -> bool:
    """Whether no option's text is another's letter, no two are the same, and none runs over lines."""
    texts = [text.strip().lower() for text in options.values()]
    return len(set(texts)) == len(texts) and not any(text.upper() in options or "\n" in text for text in texts)


@cache
def phantom() -> list[Options]:
    return [question.options for question in make_questions("text", "test", 60)]


@cache
def public() -> list[Options]:
    with gzip.open(Path(FOLDER or ".") / "mirage" / "questions.jsonl.gz", "rt") as file:
        return [json.loads(line)["options"] for line in file]


SOURCES = [
    phantom,
    pytest.param(public, marks=pytest.mark.skipif(not FOLDER, reason="not run: MEDVLT_REAL_DATA names no folder")),
]


def said(form: str, options: Options, letter: str) -> str:
    other = next(k for k in options if k != letter)
    return form.format(k=letter, t=options[letter], other=other, **lists_of(options))


def cases(source, forms: list[str], each: int):
    """(options, letter, response): every option of every clear question in `each` of the forms, in turn."""
    turn = 0
    for options in source():
        for letter in options if clear(options) else ():
            for form in forms if each >= len(forms) else [forms[(turn + i) % len(forms)] for i in range(each)]:
                yield options, letter, said(form, options, letter)
            turn += each


def missed(source, forms: list[str], each: int, wanted=lambda options, letter, found: found == letter, reason=None):
    """Responses that were read otherwise than wanted, and the number of all."""
    wrong, number = [], 0
    for options, letter, response in cases(source, forms, each):
        number += 1
        found = tolerant_answer(response, options, reason)[0]
        if not wanted(options, letter, found):
            wrong.append((response, letter, found))
    assert number >= 500
    return wrong


def test_there_are_forms_enough():
    assert len(STATEMENTS) + len(CLOSED) >= 40 and len(LANGUAGES) == 8
    assert len({form for form in STATEMENTS + CLOSED}) == len(STATEMENTS) + len(CLOSED)


@pytest.mark.parametrize("source", SOURCES)
def test_each_option_is_read_in_each_form(source):
    assert missed(source, STATEMENTS + CLOSED, 5 if source is public else 100) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_denial_never_names_what_it_denies(source):
    assert missed(source, DENIALS, 3 if source is public else 100, lambda options, letter, found: found != letter) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_list_of_the_options_names_none(source):
    assert missed(source, LISTS, 2 if source is public else 100, lambda options, letter, found: found is None) == []


@pytest.mark.parametrize("source", SOURCES)
def test_cut_text_counts_only_where_it_is_closed(source):
    closed = [form for form in CLOSED if form.count("<think>") == form.count("</think>")]
    assert missed(source, STATEMENTS, 3 if source is public else 100, lambda o, k, found: found is None, "length") == []
    assert missed(source, closed, 1 if source is public else 100, reason="length") == []


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_appended_changes_nothing(source):
    forms = [form + more for i, form in enumerate(STATEMENTS + IN_TAGS) for more in (APPENDED * 2)[i % 6 : i % 6 + 2]]
    assert missed(source, forms, 2 if source is public else 100) == []


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_published_rule_finds_right_is_right(source):
    """Complete, one closed tag, nothing behind it. The others are of known kinds, each counted."""
    kinds: Counter = Counter()
    forms = [
        "<think>{o}</think>\n<answer>{c}</answer>", "<answer>{c}</answer>", "<think>{o} <answer>{c}</answer>",
        "{o}\n<answer>\n{c}\nbecause of {o}\n</answer>", "<think>{o}</think> So <answer> {c} </answer>",
    ]  # fmt: skip
    for i, options in enumerate(source()):
        for letter, text in options.items():
            for content in (
                letter,
                letter.lower(),
                text,
                text.upper(),
                f"{letter}. {text}",
                f"{letter}. {text}".lower(),
            ):
                other = next(t for k, t in options.items() if k != letter)
                response = forms[i % 5].format(c=content, o=other)
                if not grade_response(response, options, letter, "published").correct:
                    continue
                kinds["published correct"] += 1
                if not grade_response(response, options, letter, "tolerant").correct:
                    kinds["clear" if clear(options) else "texts that are letters or the same"] += 1
    assert kinds["published correct"] >= 900
    assert kinds["clear"] == 0, kinds
    assert kinds["texts that are letters or the same"] < 0.01 * kinds["published correct"], kinds


QUESTIONS = st.sampled_from(range(60)).map(lambda i: phantom()[i])
FORMS = st.sampled_from(STATEMENTS + CLOSED)
PROSE = [
    "",
    "The film shows a large shadow.",
    "Let me think step by step. First, the age counts.",
    "Considering all this:",
]


@given(QUESTIONS, FORMS, st.data(), st.sampled_from(PROSE))
@settings(max_examples=400, deadline=None)
def test_case_markup_and_full_width_forms_change_nothing(options, form, data, prose):
    letter = data.draw(st.sampled_from(sorted(options)))
    response = said(form, options, letter)
    assume(tolerant_answer(response, options)[0] == letter)
    wide = {ord(c): chr(ord(c) + 0xFEE0) for c in "ABCDEFGHIJ().:"}
    assert tolerant_answer(response.translate(wide), options)[0] == letter
    assert tolerant_answer(f"{prose}\n\n{response}" if prose else response, options)[0] in (letter, None)
    if letter != "A":  # "a" alone may be the article
        assert tolerant_answer(response.lower().replace("<answer>", "<ANSWER>"), options)[0] == letter
        assert tolerant_answer(f"**{response}**" if "\n" not in response else response, options)[0] == letter


@given(QUESTIONS, FORMS, st.data())
@settings(max_examples=300, deadline=None)
def test_permuted_options_permute_the_answer(options, form, data):
    letters = sorted(options)
    order = data.draw(st.permutations(letters))
    moved = {letters[i]: options[order[i]] for i in range(len(letters))}
    letter = data.draw(st.sampled_from(letters))
    new = letters[order.index(letter)]
    assert tolerant_answer(said(form, options, letter), options)[0] == letter
    assert tolerant_answer(said(form, moved, new), moved)[0] == new


@given(QUESTIONS, st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=3), st.data())
@settings(max_examples=300, deadline=None)
def test_the_last_statement_stands(options, forms, data):
    forms = [form for form in forms if form in ENGLISH[:18]] or [ENGLISH[0]]
    letters = [data.draw(st.sampled_from(sorted(options))) for _ in forms]
    response = "\n\n".join(said(form, options, letter) for form, letter in zip(forms, letters, strict=True))
    assert tolerant_answer(response, options)[0] == letters[-1]
