"""A server on the loopback that gives away one file, as well or badly as a test wants."""

import hashlib
import http.server
import re
import time

import numpy as np

from gpen_plugin.checkpoints import download
from gpen_plugin.checkpoints.download import WeightFile

CONTENT = np.random.default_rng(0).bytes(3 * download.CHUNK + 12345)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `CONTENT` and keeps what it was asked for.

    Attributes:
        asked: the Range header of each request, or None.
        knows_ranges: whether it heeds them.
        tells_length: whether it says how much comes.
        silent_for: so many seconds pass before it answers.
        breaks_off_after: so many bytes of an answer are sent.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked, self.knows_ranges, self.breaks_off_after = [], True, None
        self.tells_length, self.silent_for = True, 0

    def handle_error(self, *_):
        """A client that went away is no news."""

    def file(self, sha256: str | None = DIGEST, path: str = "weights.pth") -> WeightFile:
        return WeightFile("weights.pth", "a test's", f"http://127.0.0.1:{self.server_port}/{path}", sha256)


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        time.sleep(self.server.silent_for)
        begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.knows_ranges else 0
        if self.path == "/redirected.pth":
            self.send_response(302)
            self.send_header("Location", "/weights.pth")
            self.end_headers()
        elif self.path != "/weights.pth":
            self.send_error(404)
        elif begin >= len(CONTENT):
            self.send_error(416)
        else:
            self.send_response(206 if begin else 200)
            if self.server.tells_length:
                self.send_header("Content-Length", str(len(CONTENT) - begin))
            self.end_headers()
            self.wfile.write(CONTENT[begin:][: self.server.breaks_off_after])

    def log_message(self, *_):
        """Keep the test's output clean."""
