"""A server for downloads: the code for the real servers runs with other addresses."""

import functools
import http.server
import threading
import time

import pytest


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(address of a server of `tmp_path`/served, list of the paths asked for). Paddle's cache is in `tmp_path`."""
    from paddle.dataset import common

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(common, "DATA_HOME", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            time.sleep(0.1)
            super().do_GET()

    handler = functools.partial(Handler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=[0.01]).start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()
