"""The published prompt styles as chat messages.

`medvlthinker`: one user turn, images first (RECIPE: MedVLThinker, eval/run_offline_inference.py); its instruction
holds a literal backslash and n, as every published training and evaluation prompt does.
`medvlm-r1`: the triple-quoted template of MedVLM-R1 (src/open_r1/grpo.py) with its indents and trailing blanks.
`no-think`: the MedVLThinker layout, asking for the answer alone.
`boxed`: for teachers only. The question after the instruction that DeepSeek-R1 got for m23k (m1, arXiv 2504.00869).
"""

from __future__ import annotations

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import Question

MEDVLTHINKER_INSTRUCTION = (
    r"You will solve a problem/request. You should provide your thoughts within <think> </think> tags before "
    r"providing the answer.\nWrite your final answer within <answer> </answer> tags."
)
NO_THINK_INSTRUCTION = "Write only your final answer within <answer> </answer> tags."
BOXED_INSTRUCTION = r"Return your final response within \boxed{}."
MEDVLM_R1_HEAD = "\n        "
MEDVLM_R1_TASK = (
    " \n        Your task: \n"
    "        1. Think through the question step by step, enclose your reasoning process in <think>...</think> tags. \n"
    "        2. Then provide the correct single-letter choice (A, B, C, D,...) inside <answer>...</answer> tags.\n"
    "        3. No extra information or text outside of these tags.\n        "
)
STYLES = ("medvlthinker", "medvlm-r1", "no-think")


def prompt_text(question: Question, style: str = "medvlthinker") -> str:
    """The text part of the user turn that asks a question. Raises UserError for an unknown style."""
    return question_text(question.question, question.options, style)


def question_text(question: str, options: dict[str, str], style: str) -> str:
    """As `prompt_text`, from a question's words and its options by letter; without options nothing is said of them."""
    if style == "boxed":
        lines = "".join(f"\n{letter}. {text}" for letter, text in options.items())
        return f"{BOXED_INSTRUCTION} {question}{lines}"
    if style == "medvlm-r1":
        lines = "".join(f"\n{letter}) {text}" for letter, text in options.items())
        return f"{MEDVLM_R1_HEAD}{question}{lines}{MEDVLM_R1_TASK}"
    if style not in STYLES:
        raise UserError(f"unknown prompt style '{style}'; choose one of {', '.join(STYLES)}.")
    instruction = MEDVLTHINKER_INSTRUCTION if style == "medvlthinker" else NO_THINK_INSTRUCTION
    listed = "".join(f"\n\n{letter}. {text}" for letter, text in options.items())
    return f"{instruction}\n\nQuestion: {question}" + (f"\n\nOptions:{listed}" if listed else "")


def messages(question: Question, style: str = "medvlthinker") -> list[dict]:
    """One user turn with an image part per image, then the text: what `apply_chat_template` takes."""
    images = [{"type": "image"} for _ in question.images]
    return [{"role": "user", "content": [*images, {"type": "text", "text": prompt_text(question, style)}]}]


def target(reasoning: str, letter: str, style: str = "medvlthinker") -> str:
    """The supervised answer (RECIPE: MedVLThinker SFT); without the thinking for the no-think style."""
    answer = f"<answer> {letter} </answer>"
    return answer if style == "no-think" else f"<think> {reasoning.strip()} </think>\n{answer}"
