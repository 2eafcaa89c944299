"""What was found on real outputs, each kind by hand. FORCES, WORDY and GLAND are options that trip rules."""

import pytest

from medvlt_lib.grading.tolerant import tolerant_answer
from tests.grading.test_tolerant import OPTIONS

FORCES = {letter: f"{250 + 50 * i} N" for i, letter in enumerate("ABCDEFGHIJ")}
WORDY = {
    "A": "Do not repeat blood cultures",
    "B": "Repeat (D) cultures instead of X-ray",
    "C": "A.Decrease in Km",
    "D": "Right → left",
}
GLAND = {"A": "Goitre", "B": "Cyst", "C": "Lingual thyroid", "D": "Tumour"}

JOINED = " ".join(f"({letter}) {text}" for letter, text in FORCES.items())
LISTED = JOINED.replace(" (", "\n(")
WORDY_FORMS = [
    "<think>x</think><answer>{t}</answer>", "<answer>{k}. {t}</answer>", "<answer>({k}) {t}</answer>",
    "<answer>{t} ({k})</answer>",
    "The answer is {k}. {t}", "The answer is {t}.", "**{k}. {t}**", "Answer: {t}", "I choose {t}.", "\\boxed{{{t}}}",
]  # fmt: skip

FOUND = [
    ("Final Answer:\n\nA. Heart\n\nFinal Answer:\n\nB. Lung", OPTIONS, "B"),  # no list: a line leads to each letter
    ("Final Answer:\n\nA. Heart\n\n### Answer\nB. Lung", OPTIONS, "B"),
    ("Answer: B\n\nOption A: This is incorrect because the film is dark.", OPTIONS, "B"),
    ("<answer>B</answer>\nOption A: this is incorrect.", OPTIONS, "B"),
    (f"{JOINED}\nAnswer: (option not available)", FORCES, None),
    (f"{LISTED}\n\nAnswer: (option not available)", FORCES, None),
    ("(A) 250 N … (J) 700 N\nAnswer: (option not available)", FORCES, None),
    ("Here are the answer choices:\nA. Heart\nB. Lung\nC. Liver\nD. Small bowel, distal", OPTIONS, None),
    ("Let's go through each option: A. Heart is bright. B. Lung is dark.", OPTIONS, None),
    ("Let's go through each option:\nA. Heart: it is bright.\nB. Lung: it is dark.\n", OPTIONS, None),
    ("Let's go through each option:\n\n**A. Heart**: it is bright.\n\n**B. Lung**: it is dark.\n", OPTIONS, None),
    (" A\n\nQuestion: Which vitamin?\nA. x\nB. y\nAnswer: B", OPTIONS, "A"),
    ("B\n\nQ: Which vitamin?\nA: C", OPTIONS, "B"),
    ("The answer is B.\n\nQuestion 2: which?\nAnswer: C", OPTIONS, "B"),
    ("Sure.\n\nQuestion: which organ?\nA. Heart\nB. Lung\nC. Liver\nD. Small bowel, distal\n\nAnswer: B", OPTIONS, "B"),
    ("B<|im_end|>\n<|im_start|>user\nAnswer: C", OPTIONS, "B"),
    ("Human: which?\nAnswer: B", OPTIONS, "B"),
    (
        "<|channel|>analysis<|message|>The answer is A<|end|><|start|>assistant<|channel|>final<|message|>B<|return|>",
        OPTIONS,
        "B",
    ),
    ("analysisThe answer is A.assistantfinalThe answer is B.", OPTIONS, "B"),
    ("<unused94>thought\nThe answer is A<unused95>The answer is B", OPTIONS, "B"),
    ("<|begin_of_thought|>The answer is A<|end_of_thought|>\n<|begin_of_solution|>B<|end_of_solution|>", OPTIONS, "B"),
    ("[THINK]The answer is A[/THINK]B", OPTIONS, "B"),
    ("<scratchpad>answer is A</scratchpad>B", OPTIONS, "B"),
    ("<analysis>answer is A</analysis> B", OPTIONS, "B"),
    ("<reflection>The answer is A</reflection>\nB", OPTIONS, "B"),
    ("## Thinking\n\nThe answer is A\n\n## Final Response\n\nThe answer is B", OPTIONS, "B"),
    ("<think>The answer is A. <answer>B</answer>", OPTIONS, "B"),
    ("<think>So <answer>A</answer> hmm <answer>B</answer>", OPTIONS, "B"),
    ("C. The most likely cause of this is a lingual thyroid.", GLAND, "C"),
    ("<think>x</think><answer>C. The most likely cause of this is a lingual thyroid.</answer>", GLAND, "C"),
    ("The answer is C. Lingul thyroid", GLAND, "C"),
    ("<think>x</think><answer>C. lingul thyroid</answer>", GLAND, "C"),
    ("<think>x</think><answer>A. lingul thyroid</answer>", GLAND, None),
    ("<think>x</think><answer>2 nodules</answer>", {"A": "1", "B": "2", "C": "3"}, "B"),
    ("The answer is A. No wait, it's B", OPTIONS, "B"),
    ("The answer is A. No wait, it's B.", OPTIONS, "B"),
    ("<answer>A</answer> No wait, it's B", OPTIONS, "B"),
    ("Neither A nor B is effective, so the answer is D", OPTIONS, "D"),
    ("Most likely diagnosis: **Lung (B)**", OPTIONS, "B"),
    ("Most likely diagnosis: **Pulmonary edema (C)**", {"A": "x y", "B": "Asthma", "C": "Pulmonary edema"}, "C"),
    ("答案是B", OPTIONS, "B"),
    ("答案：B", OPTIONS, "B"),
    ("正确答案是 B。", OPTIONS, "B"),
    ("因此，正确答案是B。因为片子很黑。", OPTIONS, "B"),
    ("故选B。", OPTIONS, "B"),
    ("选项B是正确的。", OPTIONS, "B"),
    ("选B", OPTIONS, "B"),
    ("答えはBです。", OPTIONS, "B"),
    ("正解は B です", OPTIONS, "B"),
    ("Bが正解です。", OPTIONS, "B"),
    ("正解：B", OPTIONS, "B"),
    ("정답은 B입니다.", OPTIONS, "B"),
    ("정답: B", OPTIONS, "B"),
    ("B가 정답입니다.", OPTIONS, "B"),
    ("La respuesta correcta es la B.", OPTIONS, "B"),
    ("La respuesta correcta es: B) Lung", OPTIONS, "B"),
    ("Respuesta: B", OPTIONS, "B"),
    ("A resposta correta é a letra B.", OPTIONS, "B"),
    ("Resposta: B", OPTIONS, "B"),
    ("La bonne réponse est la B.", OPTIONS, "B"),
    ("Réponse : B", OPTIONS, "B"),
    ("La réponse correcte est B", OPTIONS, "B"),
    ("Die richtige Antwort ist B.", OPTIONS, "B"),
    ("Antwort: B", OPTIONS, "B"),
    ("Die Antwort lautet B.", OPTIONS, "B"),
    ("La risposta corretta è la B.", OPTIONS, "B"),
    ("La risposta è B", OPTIONS, "B"),
    ("Risposta: B", OPTIONS, "B"),
    ("The answer is B. That is wrong.", OPTIONS, None),
    ("The answer is B. Lung. That's wrong, sorry.", OPTIONS, None),
    ("<answer>B</answer> That is wrong.", OPTIONS, None),
    ("The answer is A. ... The answer is not B.", OPTIONS, "A"),
    ("The answer is B. Hmm. The answer is not B.", OPTIONS, None),
    ("B\n\nA. Heart\nB. Lung\nC. Liver\nD. Small bowel, distal", OPTIONS, "B"),
    ("The answer is B.\n\nThe options were: A. Heart B. Lung C. Liver D. Small bowel, distal", OPTIONS, "B"),
    ("Answer: A. Heart\n\nB. Lung is wrong as it is dark.\nC. Liver is wrong.", OPTIONS, "A"),
    ("The answer is A. Heart. B. Lung is wrong.", OPTIONS, "A"),
    ("THE ANSWER IS B", OPTIONS, "B"),
    ("the answer is b", OPTIONS, "B"),
    ("**THE CORRECT ANSWER IS: (B) LUNG**", OPTIONS, "B"),
    ("The closest option is B.", OPTIONS, "B"),
    ("The answer is probably B.", OPTIONS, "B"),
    ("Although many choose A, the answer is B.", OPTIONS, "B"),
    ("The answer is lung, as the heart is bright.", OPTIONS, "B"),
    ("B) Lung - Correct", OPTIONS, "B"),
    ("The correct answer is anything but B", OPTIONS, None),
    ("<answer>Not lung</answer>", OPTIONS, None),
    ("B: incorrect", OPTIONS, None),
    ("B is wrong", OPTIONS, None),
    ("I would not choose B.", OPTIONS, None),
    ("The answer isn't B.", OPTIONS, None),
    ("<answer>B. Incorrect</answer>", OPTIONS, None),
    ("<answer>\\boxed{B}</answer>", OPTIONS, "B"),
    ('<answer>{"answer": "B"}</answer>', OPTIONS, "B"),
    ("{'answer': 'B', 'why': 'the answer is A'}", OPTIONS, "B"),
    ('The film.\n```json\n{"answer": "B", "explanation": "Some think the answer is A."}\n```', OPTIONS, "B"),
    ("\\boxed{B: Lung}", OPTIONS, "B"),
    ("$\\boxed{\\textbf{(B)}}$", OPTIONS, "B"),
    ("Final Answer: The final answer is $\\boxed{B}$. I hope it is correct.", OPTIONS, "B"),
    ("**Final Answer**\n\nB", OPTIONS, "B"),
    ("### Final Answer\nB. Lung", OPTIONS, "B"),
    ("**Answer**: **B**", OPTIONS, "B"),
    ("Correct Answer: **B. Lung**\n\n**Explanation:** dark", OPTIONS, "B"),
    ("<answer>B. Lung</answer></s>", OPTIONS, "B"),
]


@pytest.mark.parametrize("letter", WORDY)
@pytest.mark.parametrize("form", WORDY_FORMS)
def test_an_option_word_for_word_is_an_answer_whatever_it_says(form, letter):
    for text in (WORDY[letter], WORDY[letter].upper()):
        assert tolerant_answer(form.format(k=letter, t=text), WORDY)[0] == letter


@pytest.mark.parametrize(("response", "options", "letter"), FOUND)
def test_what_was_found(response, options, letter):
    assert tolerant_answer(response, options)[0] == letter


@pytest.mark.parametrize(
    "response", ["B", "The answer is B. Because", "<answer>B", "\\boxed{B", "A. x", "{'answer': 'B'"]
)
def test_of_cut_text_nothing_is_guessed(response):
    assert tolerant_answer(response, OPTIONS, "length") == (None, "no answer")


DECISIONS = {"A": "yes", "B": "no", "C": "maybe"}
SAID = [  # every kind of complete answer of SmolLM2-135M-Instruct in benchmarks/real_weights.json, labelled by hand
    ("C. maybe", "C"),
    ("B. no", "B"),
    ("A. yes", "A"),
    ("A. yes\n\nThe answer is A. yes.", "A"),
    ("A. yes\n\nThe answer is yes. The answer is yes. The answer is yes.", "A"),
    ("A. yes\n\nThe answer is:\nA. yes", "A"),
    ("A. yes\n\nThe answer is: A. yes", "A"),
    ("B. maybe", None),  # a letter and another option's text
    ("B. yes", None),
    ("A. yes\n\nB. no", None),  # the list again
    ('A. yes\n\nThe answer is yes. The answer is C. "Yes"', None),
    ("The answer is:", None),
]


@pytest.mark.parametrize(("response", "letter"), SAID)
def test_what_a_small_real_model_says(response, letter):
    assert tolerant_answer(response, DECISIONS, "stop")[0] == letter
