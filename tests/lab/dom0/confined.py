"""confined.py DOMID OTHER PID: becomes what an instance of DOMID is, and says what of OTHER it still reaches.

Runs as root in dom0. PID is a process of OTHER's instance. Prints JSON: what must work, and what must not, each with
the name of the error that came, or null if none did.
"""

import errno
import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from xengt_dm._core import ffi
from xengt_dm.errors import CallError
from xengt_dm.hypervisor.xen.port import XenPort
from xengt_dm.service import sandbox
from xengt_dm.xenstore import XenStore

#: At 1 MiB.
_RAM_GFN = 0x100


def outcome(call: Callable[..., object], *arguments: object) -> str | None:
    """The name of the errno with which a call failed, or None."""
    try:
        call(*arguments)
    except (CallError, OSError) as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return None


def connect(path: str) -> None:
    """Connect to a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def main() -> None:
    """Try everything."""
    domid, other, pid = map(int, sys.argv[1:])
    port = XenPort(domid, restrict=True)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        sandbox.enter(domid, Path(directory))

        def map_a_frame() -> None:
            errors = ffi.new("int[]", 1)
            port.map_frames(_RAM_GFN, 1, errors)
            if errors[0]:
                raise OSError(errors[0], "map")

        own = {
            "ask for vCPUs": outcome(port.device_model.vcpu_count),
            "map a frame": outcome(map_a_frame),
            "make a server": outcome(lambda: port.destroy_server(port.create_server())),
        }
        # What the handles refuse must not be for want of trying: the same handles, with another domain's number.
        port.device_model._domid = port.memory._domid = port.events._domid = other
        others = {
            "ask for vCPUs": outcome(port.device_model.vcpu_count),
            "map a frame": outcome(map_a_frame),
            "make a server": outcome(port.create_server),
            "map the slots": outcome(port.map_slots, 0),
            "bind an event channel": outcome(port.events.bind, 1),
            "open anew": outcome(XenPort, other),
            "read the store": outcome(XenStore),
            "use privcmd": outcome(os.open, "/dev/xen/privcmd", os.O_RDWR),
            "signal its instance": outcome(os.kill, pid, 0),
            "control its instance": outcome(connect, f"/run/xengt-dm/{other}/control.sock"),
            "become root": outcome(os.setuid, 0),
        }
        print(json.dumps({"own": own, "other": others}), flush=True)
        os._exit(0)  # nobody may clear up any more


main()
