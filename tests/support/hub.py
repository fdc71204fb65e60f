"""A server on the loopback address with the part of the Hugging Face Hub's interface that models need."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from support.server import Answer, Server, send

COMMIT = "c" * 40


class Hub:
    """Repositories by name; each is a dict of its files. ``create`` says which may be pushed to."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
        self.server, self.repositories = server, dict[str, dict[str, bytes]]()
        monkeypatch.setenv("HF_ENDPOINT", server.url.rstrip("/"))
        monkeypatch.setenv("HF_TOKEN", "hf_for_tests")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
        server.answers["api/repos/create"] = _json(lambda body: {"url": f"{server.url}{_full_name(body)}"})
        server.answers["api/validate-yaml"] = _json(lambda body: {"warnings": [], "errors": []})

    def accept(self, name: str) -> None:
        """Accept commits to a repository."""
        start = f"api/models/{name}"
        self.server.answers[f"{start}/preupload/main"] = _json(_regular_files)
        self.server.answers[f"{start}/commit/main"] = _json(lambda body: self._commit(name, body))

    def _commit(self, name: str, body: bytes) -> dict[str, str]:
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"
        }
        self.repositories[name] = files
        for revision in ("main", COMMIT):
            for path, content in files.items():
                self.server.answers[f"{name}/resolve/{revision}/{path}"] = _file(content)
        return {"commitOid": COMMIT, "commitUrl": f"{self.server.url}{name}/commit/{COMMIT}"}

    def refuse(self, path: str, code: str, status: int) -> None:
        """Answer a path with an error of the Hub, such as ``RepoNotFound``."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            _body(handler)
            handler.send_response(status)
            handler.send_header("X-Error-Code", code)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        self.server.answers[path] = answer


def _full_name(body: bytes) -> str:
    wanted = json.loads(body)
    return f"{wanted['organization']}/{wanted['name']}"


def _regular_files(body: bytes) -> dict[str, object]:
    files = json.loads(body)["files"]
    return {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}


def _json(answer: Callable[[bytes], object]) -> Answer:
    def send_json(handler: BaseHTTPRequestHandler) -> None:
        text = json.dumps(answer(_body(handler))).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    return send_json


def _file(content: bytes) -> Answer:
    def send_file(handler: BaseHTTPRequestHandler) -> None:
        if handler.command != "HEAD":
            send(handler, content, True)
            return
        handler.send_response(200)
        for name, value in {"ETag": '"1"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()

    return send_file


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    """The body of a request, whole or in chunks."""
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    parts = []
    while size := int(handler.rfile.readline(), 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)
