"""What the guest's kernel says of its GPU, and which of that must not be."""

import re

from .checks import require, say
from .linux import LinuxGuest

_BAD = re.compile(
    r"WARN|\*ERROR\*|wedged|GPU HANG|\blied\b|timed out|workaround lost|still in error|Unclaimed|BUG:|nobody cared"
    r"|soft lockup|rcu: INFO|Call Trace"
)
# What a reset that was provoked may say besides.
_OF_A_RESET = re.compile(r"GPU HANG|context reset due to GPU hang")
_RESETTING = re.compile(r"Resetting (\S+) for (.*)")
_INITIALIZED = re.compile(r"Initialized i915 .* on minor 0")


class DriverLog:
    """The guest's dmesg, looked at piece by piece; what is there when this is made is not looked at."""

    def __init__(self, guest: LinuxGuest) -> None:
        self._guest = guest
        guest.run("dmesg -c >/dev/null", 300)
        self._tainted = self._taint()

    def news(self, seconds: float) -> list[str]:
        """The lines since the last look."""
        return self._guest.run("dmesg -c", seconds)

    def check_loaded(self, seconds: float) -> None:
        """Require that the driver has come up, and that nothing is wrong."""
        lines = self.news(seconds)
        self._check(lines)
        require(any(map(_INITIALIZED.search, lines)), f"the driver did not come up: {' | '.join(lines[-4:])}")
        wedged = self._guest.run("cat /sys/kernel/debug/dri/0/i915_wedged", seconds)
        require(wedged == ["0"], f"i915_wedged says {wedged}")
        nodes = self._guest.run("ls -1 /dev/dri", seconds)
        require({"card0", "renderD128"} <= set(nodes), f"/dev/dri has {nodes}")

    def check_clean(self, seconds: float) -> None:
        """Require that nothing is wrong since the last look."""
        self._check(self.news(seconds))

    def check_resets(self, expected: list[tuple[str, str]], seconds: float) -> None:
        """Require that there were these resets since the last look, of an engine for a reason each, and no more."""
        lines = self.news(seconds)
        found = [match.groups() for match in map(_RESETTING.search, lines) if match]
        require(found == expected, f"resets: expected {expected}, got {found}")
        self._check([line for line in lines if not _RESETTING.search(line) and not _OF_A_RESET.search(line)])

    def _check(self, lines: list[str]) -> None:
        bad = [line for line in lines if _BAD.search(line) or _RESETTING.search(line)]
        for line in bad:
            say(f"dmesg: {line}")
        require(not bad, f"{len(bad)} lines of dmesg, first: {bad[0] if bad else ''}")
        require(self._taint() == self._tainted, "the kernel is tainted by what happened")

    def _taint(self) -> str:
        return self._guest.run("cat /proc/sys/kernel/tainted", 300)[-1]
