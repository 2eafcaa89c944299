"""The one error that a user sees, as a sentence."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave: the message is one sentence that says what, where and how to mend it."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook, too, the sentence alone is shown (IPython asks for this)."""
        return [f"error: {self}"]


class Terminated(Exception):
    """SIGTERM came, and what was done is on disk; the message says what."""


def first_line(error: Exception) -> str:
    """What an error says, in one line, for the middle of a sentence; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
