"""What a notebook shows while a stage trains: curves, and in GRPO the group of completions that was sampled last."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core import plots
from medvlt_lib.training.monitor import watched_panels

if TYPE_CHECKING:
    from transformers import TrainerCallback

REDRAW = 5  # steps from one drawing to the next
SHOWN = 4  # completions of a group


def live_curve(key: str, label: str, total: int) -> TrainerCallback:
    """A trainer callback that draws `key` of the log every few steps, in place."""
    return _redrawing(lambda state, args: [plots.curves(state.log_history, {key: label}, total)])


def live_grpo() -> TrainerCallback:
    """A trainer callback for GRPO that shows every few steps, in place: the curves of `watched_panels`, and the group
    of completions sampled last."""
    from IPython.display import HTML

    from medvlt_lib.training.rollouts import latest_sample

    def draw(state: Any, args: Any) -> list:
        sample = latest_sample(Path(args.output_dir).parent)
        figure = plots.panels(state.log_history, watched_panels(state.log_history), state.max_steps)
        return [figure, *([HTML(sample_html(sample))] if sample else [])]

    return _redrawing(draw)


def show_sample(sample: dict[str, Any]) -> None:
    """A row of GRPO's samples.jsonl: the prompt, its picture, four completions, green where right, red where wrong."""
    from IPython.display import HTML, display

    display(HTML(sample_html(sample)))


def _redrawing(draw: Any) -> TrainerCallback:
    """A callback that displays what `draw(state, args)` gives, and puts it anew in the same places later."""
    from IPython.display import display
    from transformers import TrainerCallback

    class Redrawing(TrainerCallback):
        places: tuple = ()
        drawn = 0  # the step that was drawn last: a row at the very end sums up, and belongs to no new step

        def on_log(self, args, state, control, **_):
            due = state.global_step % REDRAW == 0 or state.global_step == state.max_steps
            if not (due and state.is_world_process_zero and state.global_step > self.drawn):
                return
            self.drawn = state.global_step
            shown = draw(state, args)
            for place, thing in zip(self.places, shown, strict=False):
                place.update(thing)
            new = [display(thing, display_id=True) for thing in shown[len(self.places) :]]
            self.places = (*self.places, *new)

    return Redrawing()


def sample_html(sample: dict[str, Any]) -> str:
    """A row of GRPO's samples.jsonl as HTML. Rows of runs before rewards were kept with them have no colours."""
    pictures = "".join(picture_tag(data, "jpeg") for data in sample.get("pictures", []))
    text = sample["prompt"].rpartition("Question: ")[2]
    if "answer" in sample:
        text += f"\n\nright: {sample['answer']}"
    boxes = ""
    for place, completion in enumerate(sample["completions"][:SHOWN]):
        right = sample["correct"][place] if "correct" in sample else None
        note = f", reward {sample['rewards'][place]:g}" if "rewards" in sample else ""
        boxes += answer_box(completion, right, note)
    return side_by_side(pictures, f"<b>step {sample['step']}</b><br>{_plain(text)}", boxes)


def side_by_side(pictures: str, text: str, boxes: str) -> str:
    """Pictures beside text, and boxes below them; all are HTML."""
    beside = f"<div>{pictures}</div><div style='max-width:32em'>{text}</div>"
    top = f"<div style='display:flex;gap:12px;text-align:left'>{beside}</div>"
    return f"{top}<div style='display:flex;flex-wrap:wrap'>{boxes}</div>"


def answer_box(text: str, right: bool | None, note: str = "") -> str:
    """An answer with a bar on its left: green where it is right, red where it is wrong, grey where that is unknown."""
    mark, colour = {True: ("right", plots.GREEN), False: ("wrong", plots.RED), None: ("", plots.GREY)}[right]
    style = f"flex:1 1 220px;border-left:4px solid {colour};padding:4px 8px;margin:4px;text-align:left"
    return f"<div style='{style}'><b style='color:{colour}'>{mark}</b>{note}<br>{_plain(text)}</div>"


def picture_tag(data: str, form: str) -> str:
    """A picture inside the page; `data`: its file of the form png or jpeg in base64."""
    return f"<img style='width:180px' src='data:image/{form};base64,{data}'>"


def _plain(text: str) -> str:
    return f"<span style='white-space:pre-wrap'>{html.escape(text)}</span>"
