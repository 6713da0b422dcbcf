"""A small Hugging Face hub on this machine: a repository of three files, and what can go wrong."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0" * 20
LARGE, SMALL, SINGLE = "unet/big.safetensors", "unet/config.json", "one.safetensors"
CONTENT = {
    LARGE: bytes(range(256)) * 200,  # 51,200 bytes
    SMALL: b'{"small": true}',
    SINGLE: b"single " * 1000,
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """The hub's /resolve/ and, under another host name, the store that it sends on to.

    What the tests set and read belongs to the server. content: path → bytes; status: an answer to
    everything; cuts: for each answer, after how many bytes the line goes dead; held: cleared, it
    hangs then; asked: (method, path, range) of every request.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub, path = self.server, self.path.split(f"/{COMMIT}/")[-1].removeprefix("/store/")
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if hub.status:
            return self.reply(*hub.status)
        if path not in hub.content:
            return self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        data = hub.content[path]
        named = {"X-Repo-Commit": COMMIT, "ETag": f'"{git_sha1(data)}"'}
        if path == SMALL:
            return self.reply(200, named, data)
        if self.path.startswith("/store/"):
            return self.send_part(data)
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{sha256(CONTENT[path])}"'}
        place = f"http://localhost:{hub.server_port}/store/{path}"
        return self.reply(302, named | linked | {"Location": place})

    def reply(self, status: int, headers: dict[str, str], data: bytes = b""):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def send_part(self, data: bytes):
        """From where it is asked; after `cut` bytes the line goes dead, or hangs while `held`."""
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(data)
        self.wfile.write(data[start : start + cut])
        self.wfile.flush()
        self.close_connection = True
        self.server.held.wait(60)


def start() -> ThreadingHTTPServer:
    """A hub that listens; set `held` and shut it down at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    server.content, server.status, server.cuts, server.asked = dict(CONTENT), None, [], []
    server.held = threading.Event()
    server.held.set()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server
