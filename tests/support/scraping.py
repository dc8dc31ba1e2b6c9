"""The exporter as a server, and a client of it."""

from __future__ import annotations

import gzip
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xengt_dm.stats import exporter


@contextmanager
def serving_http(base: Path, host: str = "127.0.0.1") -> Iterator[exporter.Server]:
    with exporter.Server(base, (host, 0)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(port: int, path: str = "/metrics", host: str = "127.0.0.1", **headers: str) -> bytes:
    request = urllib.request.Request(f"http://{host}:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as reply:
        body: bytes = reply.read()
        return gzip.decompress(body) if reply.headers["Content-Encoding"] == "gzip" else body
