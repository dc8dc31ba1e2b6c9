"""What dom0 reports: a JSON object on a raw disk of its own, with its length and hash before it.

The serial console carries Xen's, dom0's and the guests' lines at once, each able to cut another in two.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

_SIZE = 1 << 20
_MAGIC = b"xengt-dm-lab-result"


@dataclass(frozen=True)
class Outcome:
    """A scenario's end: `why` is None if it passed."""

    scenario: str
    why: str | None
    figures: dict[str, int | float | str]


def create(path: Path) -> None:
    """Make the empty disk."""
    with path.open("wb") as disk:
        disk.truncate(_SIZE)


def read(path: Path) -> list[Outcome]:
    """The scenarios that came to an end, in their order. Raises LabError if what dom0 wrote is damaged."""
    head, _, rest = path.read_bytes().partition(b"\n")
    if not head.startswith(_MAGIC):
        return []
    _, length, digest = head.decode("ascii", "replace").split(" ")
    body = rest[: int(length)]
    if hashlib.sha256(body).hexdigest() != digest:
        raise LabError("dom0's result is damaged")
    return [Outcome(each["scenario"], each["why"], each["figures"]) for each in json.loads(body)]
