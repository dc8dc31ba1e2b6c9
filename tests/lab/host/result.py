"""What dom0 reports: a JSON object on a raw disk of its own, with its length and hash before it.

The serial console carries Xen's, dom0's and the guests' lines at once, each able to cut another in two.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

_SIZE = 1 << 20
_MAGIC = "xengt-dm-lab-result"


@dataclass(frozen=True)
class Result:
    """A scenario's outcome: `why` is None if it passed."""

    why: str | None
    figures: dict[str, int | float | str]


def create(path: Path) -> None:
    """Make the empty disk."""
    with path.open("wb") as disk:
        disk.truncate(_SIZE)


def read(path: Path) -> Result:
    """Read what dom0 wrote. Raises LabError if it wrote nothing, or not all of it."""
    head, _, rest = path.read_bytes().partition(b"\n")
    words = head.decode("ascii", "replace").split(" ")
    if len(words) != 3 or words[0] != _MAGIC or not words[1].isdigit():
        raise LabError("dom0 ended without a result")
    body = rest[: int(words[1])]
    if hashlib.sha256(body).hexdigest() != words[2]:
        raise LabError("dom0's result is damaged")
    report = json.loads(body)
    return Result(report["why"], report["figures"])
