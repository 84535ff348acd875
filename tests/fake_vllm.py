"""Stands for vLLM's server: `-m MODULE --port N ...`, answers from FAKE_VLLM/answers.json.

A key of answers.json is a question's text and its image's data URL.

FAKE_VLLM/mode says how it fails: exit (at its start), mute (never ready), die:N (at answer N),
tokens (one token too many), texts (another answer). Each start appends its arguments and the
processes it consists of to starts.jsonl, each request its body to requests.jsonl and its header
Connection to connections.jsonl. Only the standard library, so that it starts at once.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(os.environ["FAKE_VLLM"])
MODE, _, NUMBER = (FOLDER / "mode").read_text().partition(":")
ANSWERS = json.loads((FOLDER / "answers.json").read_text())
lock, answered = threading.Lock(), []


def note(file: str, value: object) -> None:
    with lock, (FOLDER / file).open("a") as lines:
        lines.write(json.dumps(value) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections

    def do_GET(self):
        self.reply(503 if MODE == "mute" else 200, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note("requests.jsonl", body)
        note("connections.jsonl", self.headers["Connection"])
        answered.append(body)
        if MODE == "die" and len(answered) > int(NUMBER):
            print("out of memory", flush=True)
            os._exit(7)
        image, text = body["messages"][0]["content"]
        answer = ANSWERS[text["text"] + image["image_url"]["url"]]
        ids = answer["ids"] + ([0] if MODE == "tokens" else [])
        message = {"content": "nothing" if MODE == "texts" else answer["text"]}
        self.reply(
            200,
            {
                "choices": [{"message": message, "finish_reason": answer["finish_reason"]}],
                "usage": {"prompt_tokens": len(ids), "completion_tokens": answer["new_tokens"]},
                "prompt_token_ids": ids,
            },
        )

    def reply(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True


def main(arguments: list[str]) -> None:
    worker = subprocess.Popen(["sleep", "600"])  # vLLM has processes of its own

    def leave(*_):
        worker.kill()
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    note("starts.jsonl", {"arguments": arguments, "pids": [os.getpid(), worker.pid]})
    print("loading weights", flush=True)
    if MODE == "exit":
        print("ValueError: no such dtype", *range(20), "see above", sep="\n", flush=True)
        sys.exit(3)
    port = int(arguments[arguments.index("--port") + 1])
    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
