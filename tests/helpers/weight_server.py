"""A server on the loopback that gives away one file, as well or badly as a test wants."""

import hashlib
import http.server
import time

import numpy as np

from gpen_plugin.checkpoints.download import WeightFile

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `CONTENT` and keeps what it was asked for.

    Attributes:
        requests: how many were made.
        tells_length: whether it sends Content-Length.
        silent_for: so many seconds pass before it answers.
        breaks_off_after: so many bytes of an answer are sent.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.requests, self.breaks_off_after = 0, None
        self.tells_length, self.silent_for = True, 0

    def handle_error(self, *_):
        """A client that went away is no news."""

    def file(self, sha256: str | None = DIGEST, path: str = "weights.pth") -> WeightFile:
        return WeightFile("weights.pth", "a test's", f"http://127.0.0.1:{self.server_port}/{path}", sha256)


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        time.sleep(self.server.silent_for)
        if self.path == "/redirected.pth":
            self.send_response(302)
            self.send_header("Location", "/weights.pth")
            self.end_headers()
        elif self.path != "/weights.pth":
            self.send_error(404)
        else:
            self.send_response(200)
            if self.server.tells_length:
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: self.server.breaks_off_after])

    def log_message(self, *_):
        """Keep the test's output clean."""
