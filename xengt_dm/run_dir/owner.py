"""The user that the daemon of a domain becomes, and that its run directory belongs to."""

from __future__ import annotations

from typing import Final

#: The first of 32,752 user ids, one for each domain id. They are above the ranges that distributions, subordinate ids
#: and containers use (https://systemd.io/UIDS-GIDS: nobody uses 1879048192 and more), and below 2^31.
UID_BASE: Final = 0x7000_0000


def user_of(domid: int) -> int:
    """Returns the user id of a domain's daemon."""
    return UID_BASE + domid
