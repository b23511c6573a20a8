"""The health check of our containers, run as they run it, against a service that answers, refuses or is away."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import free_port

SCRIPT = Path(__file__).parents[2] / "deploy" / "is_alive.py"


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A service that answers `/livez` like that, and anything else with 404; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def is_alive(port: int) -> int:
    proxied = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-IS", SCRIPT, str(port)], env=proxied, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
    return done.returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_a_live_service_is_found_alive_whatever_proxy_is_set(status: int, code: int) -> None:
    with answering(status) as port:
        assert is_alive(port) == code


def test_an_absent_service_is_not_alive() -> None:
    assert is_alive(free_port()) == 1
