"""A daemon in a process of its own, with a domain of the embedded hypervisor: ``daemon_process.py BASE MODE [END]``.

Prints ``storing`` once the guest's stores trap, and when the daemon has ended one line of JSON that says what it left
behind. The guest stores on until then and some more. END: after how many stores the domain goes away, or ``quiet`` for
a guest that stores no more after the first few.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from tests.support.tables import pte
from xengt_dm.config.files import read_setting
from xengt_dm.config.merge import Config
from xengt_dm.daemon import main as daemon
from xengt_dm.daemon.reload import Running
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.instance import DEFAULT_BAR0
from xengt_dm.log import log
from xengt_dm.service.notify import Notifier
from xengt_dm.vgpu import registers as reg

DOMID = 7
FRAME = 4096
FRAMES = 64
ROOT, PDP, PD, PT = 2, 3, 4, 5
BAR = DEFAULT_BAR0
#: Stores before the word is out, and after the daemon has ended.
SOME = 200


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
        for table, child in ((ROOT, PDP), (PDP, PD), (PD, PT)):
            vcpu.store(table * FRAME, 8, pte(child))
        vcpu.mmio_write(BAR + reg.PDP0, 8, ROOT * FRAME)
        vcpu.mmio_write(BAR + reg.G2V_NOTIFY, 4, reg.Notification.PPGTT_L4_CREATE)
        count = left = 0
        while left < SOME:
            left += self.ended.is_set()
            count += 1
            at, value = PT * FRAME + count % 512 * 8, count % 4096 << 52 | count % FRAMES * FRAME | 3
            vcpu.store(at, 8, value)
            self.stored[at] = value
            if count == SOME:
                print("storing", flush=True)
                if self.quiet:
                    return
            if count == self.end:
                self.domain.destroy()


def main(base: str, mode: str, end: str = "0") -> None:
    log.configure(DOMID)
    config = Config([read_setting(f"shadow.mode={mode}"), read_setting("domain.check_interval_ms=50")])
    with EmbeddedDomain(FRAMES, 2, domid=DOMID) as domain:
        port = domain.port()
        guest = Guest(domain, end)
        daemon.run(port, Running(config, lambda: config), Path(base), guest)
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
