"""A daemon in a process of its own, with a domain of the embedded hypervisor: :func:`start`, or
``python -m tests.support.daemon_process BASE MODE [END [TRACE]]``.

Prints ``storing`` once the guest's stores trap, and when the daemon has ended one line of JSON that says what it left
behind. The guest stores on until then and some more. END: after how many stores the domain goes away, or ``quiet`` for
a guest that stores no more after the first few. TRACE: record to this file from the start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.machine import L1, announce, link
from tests.support.tables import address, pte
from xengt_dm.config.files import read_setting
from xengt_dm.config.merge import Config
from xengt_dm.daemon import main as daemon
from xengt_dm.daemon.recording import open_trace_file
from xengt_dm.daemon.reload import Running
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.log import log
from xengt_dm.service.notify import Notifier

DOMID = 7
FRAMES = 64
#: Stores before the word is out, and after the daemon has ended.
SOME = 200


def start(base: Path, *words: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start it; what it prints is text."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.daemon_process", str(base), *words],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


class Guest(Notifier):
    """Starts to store when the daemon says that it serves."""

    def __init__(self, domain: EmbeddedDomain, end: str) -> None:
        super().__init__({})
        self.domain = domain
        self.quiet = end == "quiet"
        self.end = 0 if self.quiet else int(end)
        self.ended = threading.Event()
        self.stored: dict[int, int] = {}

    def ready(self, status: str) -> None:
        self.domain.start(0, self.program)

    def program(self, vcpu: Vcpu) -> None:
        link(vcpu)
        announce(vcpu)
        count = left = 0
        while left < SOME:
            left += self.ended.is_set()
            count += 1
            at, value = address(L1, count % 512), count % 4096 << 52 | pte(count % FRAMES)
            vcpu.store(at, 8, value)
            self.stored[at] = value
            if count == SOME:
                print("storing", flush=True)
                if self.quiet:
                    return
            if count == self.end:
                self.domain.destroy()


def main(base: str, mode: str, end: str = "0", trace: str = "") -> None:
    log.configure(DOMID)
    config = Config([read_setting(f"shadow.mode={mode}"), read_setting("domain.check_interval_ms=50")])
    with EmbeddedDomain(FRAMES, 2, domid=DOMID) as domain:
        port = domain.port()
        guest = Guest(domain, end)
        file = open_trace_file(trace) if trace else None
        daemon.run(port, Running(config, lambda: config), Path(base), guest, file)
        guest.ended.set()
        domain.join()
        left = {"files": sorted(path.name for path in (Path(base) / str(DOMID)).iterdir())}
        if not guest.end:
            left |= {
                "wrong": sum(domain.read_u64(at) != value for at, value in guest.stored.items()),
                "protected": domain.protected(),
                "owner": domain.owner,
                "server": port.server_exists(0),
                "dropped": domain.dropped_stores,
                "trapped": domain.counters["trapped"],
            }
        port.close()
    print(json.dumps(left), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
