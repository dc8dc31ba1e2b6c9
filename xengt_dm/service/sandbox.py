"""What a daemon gives up before it looks at anything that a guest wrote.

Facts: opening /dev/xen/privcmd takes root, and an open, unrestricted one is power over every domain. Xen's libraries
can restrict what they opened to one domain, for good (xentoolcore_restrict_all); a process of root could open it anew.
Xen uses a domain id again after 32,751 domains.
What follows: restricted handles are worth nothing to us while the process is still root.
Decision: open, restrict, then become a user that exists for this domain alone: UID_BASE + domid, without a name,
without groups, without capabilities and with no way to new ones. All that comes later, the server's registration
included, is done by that user. systemd's units take away the rest (systemd/xengt-dm@.service).
Cost: the run directory is handed to that user, so only root and it can use the control socket; and nothing that needs
root can be done later, so whatever is read again on a reload must be readable by everybody.
"""

from __future__ import annotations

import grp
import os
from pathlib import Path
from typing import Final

from xengt_dm._core import lib
from xengt_dm.errors import HostError
from xengt_dm.run_dir.owner import user_of

#: Those who may read stats pages: the exporter's group, see systemd/xengt-dm.sysusers.
READERS: Final = "xengt-dm"
_ROOT: Final = 0


def enter(domid: int, directory: Path) -> bool:
    """Become the user of ``domid``; True if this process was root, False if it has nothing to give up but new power.

    ``directory`` and what is in it become that user's. Every handle must be open and restricted by now. Raises
    HostError when a step fails; the process may then be neither, and has to end.
    """
    was_root = os.geteuid() == _ROOT
    step = "prctl PR_SET_NO_NEW_PRIVS"
    try:
        if was_root:
            user, group = user_of(domid), _readers_group(domid)
            step = f"hand over {directory}"
            directory.chmod(0o750)  # first: it takes more than CAP_CHOWN once it is another's
            for path in (*directory.iterdir(), directory):
                os.chown(path, user, group, follow_symlinks=False)
            step = "setgroups"
            os.setgroups([])
            step = f"setresgid {group}"
            os.setresgid(group, group, group)
            step = f"setresuid {user}"
            os.setresuid(user, user, user)
        error = lib.xd_no_new_privileges()
        if error:
            raise OSError(-error, os.strerror(-error))
    except OSError as error:
        raise HostError(step, domid, error.errno or 0, f"cannot give up root: {error.strerror}") from error
    return was_root


def _readers_group(domid: int) -> int:
    """The group that may read the stats page; without such a group, one of the domain's own."""
    try:
        return grp.getgrnam(READERS).gr_gid
    except KeyError:
        return user_of(domid)
