"""Money: what one model at one server has cost so far, kept on disk, and a cap that no request may pass.

Before a request is sent, the most that it can cost is reserved. When its answer is there, the true cost, by the
server's own count of tokens, takes the reservation's place. Where nobody tells the true cost (an answer without a
count, a timeout, a killed process), the reservation stays, since that request may have to be paid.

The cap holds for everything that was ever asked of this model at this server with this cache, by every run and every
notebook. Runs share the answers in the cache, so no single run can say what they cost. And neither a restart nor
`--redo` nor a new run may begin to count from zero. Whoever wants to spend more raises the cap.
"""

from __future__ import annotations

import base64
import threading
from pathlib import Path

from filelock import FileLock

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json

MESSAGE_TOKENS = 64  # more than the marks around one message, with a system turn that a server adds, have


class Budget:
    """The ledger of one model at one server; several threads and processes may use it at the same time.

    `prices` are US dollars a million prompt and completion tokens. `cap` is in dollars, `setting` its name in the
    profile.
    """

    def __init__(self, ledger: Path, prices: tuple[float, float], cap: float | None, setting: str) -> None:
        self.ledger, self.prices, self.cap, self.setting = ledger, prices, cap, setting
        self._in_flight = 0
        self._settled = threading.Condition()

    def spent(self) -> float:
        """Dollars in the ledger: true costs, and reservations of requests whose cost is not known (yet)."""
        if not self.ledger.exists():
            return 0.0
        try:
            return float(read_json(self.ledger)["dollars"])
        except (KeyError, TypeError, ValueError, UserError):
            raise UserError(f"{self.ledger} is not readable; delete it to count from zero.") from None

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        return (prompt_tokens * self.prices[0] + completion_tokens * self.prices[1]) / 1e6

    def reserve(self, dollars: float) -> None:
        """Count what a request may cost, before it is sent.

        While it does not fit under the cap, wait for requests in flight, which mostly cost less than was reserved.
        Raises UserError when none is in flight any more and it still does not fit.
        """
        with self._settled:
            while not self._add(dollars, self.cap):
                if not self._in_flight:
                    raise UserError(
                        f"{self.spent():.4f} dollars are spent (counted in {self.ledger}), the next request may cost "
                        f"{dollars:.4f}, and the cap is {self.setting} = {self.cap}; raise it, and the same command "
                        "goes on from the answers it has."
                    )
                self._settled.wait()
            self._in_flight += 1

    def settle(self, reserved: float, cost: float) -> None:
        """Put a request's cost in the place of its reservation."""
        with self._settled:
            self._add(cost - reserved)
            self._in_flight -= 1
            self._settled.notify_all()

    def _add(self, dollars: float, cap: float | None = None) -> bool:
        """Add to the ledger, unless it would then pass `cap`. Returns whether it was added."""
        if not dollars:
            return True
        try:
            self.ledger.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.ledger}.lock"):
                total = self.spent() + dollars
                if cap is not None and total > cap:
                    return False
                write_json(self.ledger, {"dollars": max(0.0, total)})
                return True
        except OSError as error:
            raise UserError(
                f"cannot write {self.ledger}: {error.strerror}; set MEDVLT_CACHE to a folder you may write to."
            ) from error


def prompt_tokens_at_most(messages: list[dict]) -> int:
    """More tokens than a server counts for messages, whatever its tokenizer: no text has more tokens than bytes."""
    tokens = 0
    for message in messages:
        content = message["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        tokens += MESSAGE_TOKENS
        for part in parts:
            if part["type"] == "image_url":
                tokens += _picture_tokens_at_most(*_png_size(part["image_url"]["url"]))
            else:
                tokens += len(part["text"].encode())
    return tokens


def _picture_tokens_at_most(width: int, height: int) -> int:
    """The larger of two counts: gpt-4o-mini's (2,833 and 5,667 for each of at most 8 tiles of 512 pixels), which is the
    largest of OpenAI's, and Qwen2.5-VL's without a limit of pixels (one for each 28 x 28 pixels)."""
    tiles = min(8, -(-width // 512) * -(-height // 512))
    return max(2833 + 5667 * tiles, -(-width // 28) * -(-height // 28))


def _png_size(data_url: str) -> tuple[int, int]:
    """Width and height of a PNG picture in a data URL: the bytes 16 to 24 of the file."""
    head = base64.b64decode(data_url.partition(",")[2][:32])
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
