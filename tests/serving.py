"""What the tests' own servers share."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKENS = 7  # that the server counts for an answer


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that writes no log and answers with JSON."""

    def answer(self, status: int, payload: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args):
        pass


class Teaching(QuietHandler):
    """Answers as `reply(question, sample)` says: a text, a message, a (text, finish reason), or a status and an error's
    code for the whole request. `asked` holds the ids of the questions that were answered, `keys` the keys sent. Without
    `at_once` it gives one answer a request, however many are asked for. After `stall_after` answers the others
    wait, and each of them lets `stalled` be acquired once."""

    questions, reply, asked, texts, keys = {}, None, [], [], set()
    at_once, stall_after, stalled, over = True, None, threading.Semaphore(0), threading.Event()
    counting = threading.Lock()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][0]["content"]
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        question = next(q for q in Teaching.questions.values() if q.question in text and options(q) <= set(lines(text)))
        Teaching.keys.add(self.headers["Authorization"])
        with Teaching.counting:
            stalls = Teaching.stall_after is not None and len(Teaching.asked) >= Teaching.stall_after
            if not stalls and body["max_tokens"] > 1:  # with 1, the engine looks whether pictures arrive
                Teaching.asked.append(question.id)
                Teaching.texts.append(text)
        if stalls:
            Teaching.stalled.release()
            Teaching.over.wait(60)
            return
        replies = [Teaching.reply(question, sample) for sample in range(body.get("n", 1) if Teaching.at_once else 1)]
        status = 200
        if isinstance(replies[0], tuple) and isinstance(replies[0][0], int):
            status, code = replies[0]
            answer = {"error": {"message": "no", "code": code}}
        else:
            tokens = len(text) + 100 * (len(parts) - 1), TOKENS * len(replies)
            usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
            choices = [choice(i, given) for i, given in enumerate(replies)]
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
            answer["usage"] = usage
        self.answer(status, json.dumps(answer).encode())


def lines(text):
    return [line.strip() for line in text.splitlines()]


def options(question):
    return {f"{letter}. {text}" for letter, text in question.options.items()}


def choice(index, given):
    text, reason = given if isinstance(given, tuple) else (given, "stop")
    message = text if isinstance(text, dict) else {"content": text}
    return {"index": index, "finish_reason": reason, "message": {"role": "assistant", **message}}


def right(question, sample=0, thought="because"):
    return f"<think> {thought} {question.id} {sample} </think>\n<answer> {question.answer_label} </answer>"


def wrong(question):
    letter = next(k for k in question.options if k != question.answer_label)
    return f"<think> because </think>\n<answer> {letter} </answer>"


@contextmanager
def teaching() -> Iterator[str]:
    """The address of a Teaching server, which answers right until a test says otherwise."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Teaching)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Teaching.reply, Teaching.asked, Teaching.texts, Teaching.keys = staticmethod(right), [], [], set()
    Teaching.stall_after, Teaching.at_once, Teaching.stalled = None, True, threading.Semaphore(0)
    Teaching.over.clear()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    Teaching.over.set()
    server.shutdown()
