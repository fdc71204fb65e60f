"""A web server on the loopback address, whose answers a test sets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Responses by path; every other path is 404. ``requests`` holds (method, path, Range header)."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, str, str]] = []

    def file(self, path: str, content: bytes, ranges: bool = True) -> None:
        """Serve a file, in parts if requested and ``ranges``."""
        self.answers[path] = lambda handler: send(handler, content, ranges)

    def short(self, path: str, content: bytes, size: int, times: int = 1000) -> None:
        """Break the connection after ``size`` bytes of an answer, ``times`` times."""
        left = [times]

        def answer(handler: BaseHTTPRequestHandler) -> None:
            left[0] -= 1
            send(handler, content, True, size if left[0] >= 0 else None)

        self.answers[path] = answer

    def redirect(self, path: str, target: str) -> None:
        """Redirect to another address."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", target)
            handler.end_headers()

        self.answers[path] = answer


def send(handler: BaseHTTPRequestHandler, content: bytes, ranges: bool, size: int | None = None) -> None:
    """Send a file, or the part that the Range header names; at most ``size`` bytes of it arrive."""
    wanted = handler.headers.get("Range", "")
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and ranges else 0
    if start > len(content) or (wanted and ranges and start == len(content)):
        handler.send_error(416)
        return
    rest = content[start:]
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(rest)))
    handler.end_headers()
    handler.wfile.write(rest if size is None else rest[:size])


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run a server in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append((self.command, self.path, self.headers.get("Range", "")))
            answer = server.answers.get(self.path.lstrip("/"))
            if answer is None:
                self.send_error(404)
            else:
                answer(self)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(http.server_address[1])
        thread = threading.Thread(target=lambda: http.serve_forever(poll_interval=0.02), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
