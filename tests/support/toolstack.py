"""Stand-ins for xl and for what starts instances, which write down what they are asked for."""

from __future__ import annotations

import sys
from pathlib import Path

from xengt_dm.service.instances import InstanceError
from xengt_dm.service.toolstack import Xl

DOMID = 7


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


class XlHost:
    """xl, and instances, that write down what they are asked to do; what is in ``fails`` fails."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said"
        self.fails = folder / "fails"
        self.said.touch()
        self.fails.touch()
        program = script(
            folder / "xl",
            f"import sys\nopen({str(self.said)!r}, 'a').write(' '.join(['xl', *sys.argv[1:]]) + chr(10))\n"
            f"if sys.argv[1] == 'domid': print({DOMID})\n"
            f"sys.exit(1 if sys.argv[1] in open({str(self.fails)!r}).read().split() else 0)\n",
        )
        self.xl = Xl([str(program)])
        self.config = folder / "guest.cfg"
        self.config.write_text('name = "guest"\nxengt = [ "shadow.mode=relaxed" ]\n')

    def start(self, domid: int) -> None:
        self._note("start", domid)

    def stop(self, domid: int) -> None:
        self._note("stop", domid)

    def _note(self, what: str, domid: int) -> None:
        with self.said.open("a") as said:
            said.write(f"{what} {domid}\n")
        if what in self.fails.read_text().split():
            raise InstanceError(f"{what} failed")

    @property
    def steps(self) -> list[str]:
        return self.said.read_text().replace(str(self.config), "CONFIG").splitlines()
