"""A guest domain that runs one of the lab's programs, and the mailbox by which it talks to the scenario."""

import contextlib
import ctypes
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from .checks import ScenarioError, require, say, wait_until
from .libxen import PAGE_SIZE, ForeignMemory
from .programs import outcome, processor_seconds, run, show, wait_exit

# The same values as in tests/lab/guest/lab.h.
RAM_SIZE = 0x04000000
VCPUS = 2
MAILBOX_GPA = 0x00400000
INTENT_GPA = 0x00401000
_MAGIC = 0x42414C58
_FIELDS = (
    "magic", "size", "checkpoint", "go", "order", "failed", "stores", "traps", "verified", "tables",
    "progress0", "progress1", "root0", "root1", "intents0", "intents1", "wanted",
    "refs0", "refs1",
)  # fmt: skip
_WHY_SIZE = 96
_MAILBOX_SIZE = 4 * len(_FIELDS) + _WHY_SIZE
_INTENT = struct.Struct("<QQ")
_GUESTS = Path("/lab/guests")
_TOOL_SECONDS = 600
_XENCTX = sorted(Path("/usr/lib").glob("xen-4*/bin/xenctx"))

_CONFIG = """\
name = "{name}"
type = "{kind}"
kernel = "{kernel}"
memory = {memory}
vcpus = {vcpus}
tsc_mode = "native"
on_poweroff = "{on_poweroff}"
on_reboot = "preserve"
on_crash = "preserve"
{more}
"""


class Guest:
    """A created domain; it starts paused.

    `more` are lines for its configuration, `command` is what creates it, but for the name of the file.
    """

    def __init__(
        self,
        program: str,
        on_poweroff: str = "destroy",
        more: str = "",
        *,
        kind: str = "pvh",
        vcpus: int = VCPUS,
        command: Sequence[str] = ("xl", "create", "-p"),
    ) -> None:
        self.program = program
        self.vcpus = vcpus
        config = Path(f"/run/{program}.cfg")
        kernel = _GUESTS / f"{program}.elf"
        config.write_text(
            _CONFIG.format(
                name=program,
                kind=kind,
                kernel=kernel,
                memory=RAM_SIZE >> 20,
                vcpus=vcpus,
                on_poweroff=on_poweroff,
                more=more,
            )
        )
        run(*command, str(config))
        self.attach()

    def attach(self) -> None:
        """Reach into the domain that has its name now."""
        self.domid = int(_xl("domid", self.program))
        self.memory = ForeignMemory(self.domid)
        self._mailbox = self.memory.map(MAILBOX_GPA // PAGE_SIZE, 1)

    def start(self) -> None:
        """Let it run."""
        _xl("unpause", self.program)

    def save(self, image: Path, order: int) -> None:
        """Have it saved to a file, which ends it; `order` tells its program to suspend."""
        self._suspended_by(order, "xl", "save", self.program, str(image))

    def restore(self, image: Path) -> None:
        """Restore it from a file, paused, as another domain."""
        _xl("restore", "-p", str(image))
        self.attach()

    def migrate(self, order: int) -> None:
        """Have it migrated to another domain of this host, which then runs; `order` tells its program to suspend."""
        self._suspended_by(order, *self.migration())
        self.attach()

    def migration(self, receiver: str = "exec xl migrate-receive") -> list[str]:
        """The command that migrates it to what reads the input of `receiver`, a command of the shell."""
        return ["xl", "migrate", "-s", "", self.program, receiver]

    def _suspended_by(self, order: int, *words: str) -> None:
        """Run a command that has the guest suspended, which ends this domain.

        xl asks a PVH guest by a node of the store, where we answer for it.
        """
        node = f"/local/domain/{self.domid}/control/shutdown"
        name = " ".join(words[:2])
        # Two events: one at once, and one for the change.
        watch = ["xenstore-watch", "-n", "2", node]
        with (
            subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as change,
            subprocess.Popen(words, stdin=subprocess.DEVNULL) as xl,
        ):
            try:
                wait_until(
                    "xl to ask the guest",
                    _TOOL_SECONDS,
                    lambda: change.poll() is not None or xl.poll() is not None,
                    lambda: processor_seconds(xl.pid),
                )
                require(xl.poll() is None, f"{name} ended before it asked the guest to suspend")
                require(run("xenstore-read", node).strip() == "suspend", f"{name} asked something else of the guest")
                run("xenstore-write", node, "")
                self.leave(0)  # the same checkpoint comes each time
                self.order(order)
                self.close()
                status = wait_exit(xl, name, _TOOL_SECONDS)
                require(status == 0, f"{name} ended with status {status}")
            finally:
                change.kill()
                xl.kill()

    def close(self) -> None:
        """Unmap its memory: a domain stays half-dead while anything of it is mapped."""
        if self._mailbox:
            self.memory.unmap(self._mailbox, 1)
            self.memory.close()
            self._mailbox = 0

    def destroy(self) -> None:
        """End a domain that did not end by itself."""
        outcome("xl", "destroy", self.program)

    def read(self, field: str) -> int:
        """A field of the mailbox."""
        return self._word(field).value

    def moving(self) -> bytes:
        """What changes while its program does anything: the whole mailbox."""
        return ctypes.string_at(self._mailbox, _MAILBOX_SIZE) if self._mailbox else b""

    def stores(self) -> list[int]:
        """How many stores each vCPU has made so far."""
        return [self.read(f"progress{vcpu}") for vcpu in range(VCPUS)]

    def wait_stores(self, more: int, seconds: float, what: str) -> list[int]:
        """Wait until each vCPU has made so many more; how many it has made then. Raises ScenarioError."""
        start = self.stores()

        def enough() -> bool:
            self.check()
            return all(now >= then + more for now, then in zip(self.stores(), start, strict=True))

        wait_until(f"{more} stores of each vCPU {what}", seconds, enough, self.moving)
        return self.stores()

    def order(self, what: int) -> None:
        """Tell the program something it understands."""
        self._word("order").value = what

    def reach(self, checkpoint: int, seconds: float) -> None:
        """Wait until the guest is at a checkpoint. Raises ScenarioError if it failed, with its reason."""

        def arrived() -> bool:
            self.check()
            return self.read("checkpoint") >= checkpoint

        wait_until(
            f"checkpoint {checkpoint} of the guest, it is at {self.read('checkpoint')}", seconds, arrived, self.moving
        )
        require(self.read("magic") == _MAGIC, "the guest's mailbox has no magic")
        require(self.read("size") == _MAILBOX_SIZE, "the guest's mailbox has another layout than dom0's")

    def leave(self, checkpoint: int) -> None:
        """Let the guest go on from a checkpoint."""
        self._word("go").value = checkpoint

    def check(self) -> None:
        """Raise ScenarioError if the guest said that it failed."""
        if self.read("failed"):
            why = ctypes.string_at(self._mailbox + 4 * len(_FIELDS), _WHY_SIZE)
            raise ScenarioError(f"guest: {why.split(bytes(1))[0].decode('ascii', 'replace')}")

    def intents(self) -> dict[int, list[tuple[int, int]]]:
        """What the guest meant to map: for each live root the records (va, intent)."""
        counts = [self.read(f"intents{vcpu}") for vcpu in range(VCPUS)]
        data = self.memory.read(INTENT_GPA, max(1, sum(counts)) * _INTENT.size)
        records = [(va, intent) for va, intent in _INTENT.iter_unpack(data)]
        roots = [self.read(f"root{vcpu}") for vcpu in range(VCPUS)]
        return {root: records[sum(counts[:vcpu]) : sum(counts[: vcpu + 1])] for vcpu, root in enumerate(roots) if root}

    def show_state(self) -> None:
        """Print to the console where its vCPUs are: what one wants to know of a guest that does not go on."""
        show("xl", "vcpu-list")
        show("xl", "debug-keys", "q")
        for tool in _XENCTX:
            for vcpu in range(VCPUS):
                show(str(tool), str(self.domid), str(vcpu))

    def is_gone(self) -> bool:
        """Whether the toolstack no longer knows the domain."""
        return outcome("xl", "domid", self.program)[0] != 0

    def _word(self, field: str) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(self._mailbox + 4 * _FIELDS.index(field))


@contextlib.contextmanager
def created(
    program: str,
    on_poweroff: str = "destroy",
    more: str = "",
    *,
    kind: str = "pvh",
    vcpus: int = VCPUS,
    command: Sequence[str] = ("xl", "create", "-p"),
) -> Iterator[Guest]:
    """A domain running guest/PROGRAM.c, destroyed at the end if it is still there; arguments as for Guest."""
    say(f"creating a guest that runs {program}")
    guest = Guest(program, on_poweroff, more, kind=kind, vcpus=vcpus, command=command)
    try:
        yield guest
    except BaseException:
        guest.show_state()
        raise
    finally:
        guest.close()
        guest.destroy()


def _xl(*arguments: str) -> str:
    return run("xl", *arguments)
