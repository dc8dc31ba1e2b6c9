"""The privileges that a daemon gives up before it reads anything that a guest wrote.

Facts: only root may open /dev/xen/privcmd, and an open, unrestricted handle controls every domain. Xen's libraries can
restrict their handles to one domain permanently (xentoolcore_restrict_all), but a process of root could open the device
again. Xen uses a domain id again after 32,751 domains.
What follows: restricting the handles protects nothing while the process is still root.
Decision: open and restrict the handles, then become a user that exists for this domain alone: UID_BASE + domid, without
a name, groups or capabilities, and without a way to gain any. That user does everything else, including the
registration of the server. systemd's units forbid more (systemd/xengt-dm@.service).
Cost: the run directory belongs to that user, so only root and that user can use the control socket. Nothing that needs
root can be done later, so every user must be able to read the files that a reload reads.
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
    """Becomes the user of ``domid``. Returns False if this process was not root; it can then gain no new privileges.

    ``directory`` and its files get that user as their owner. Every handle must be open and restricted before. Raises
    HostError if a step fails; the process must then end, because it may have given up only a part.
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
