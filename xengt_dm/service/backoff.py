"""How long a daemon waits where its service manager starts it again at once.

Facts: while a domain has no daemon, its vCPUs may wait, so the manager must not wait before it starts one. But a daemon
that cannot work, or that its guest can kill at will, would then be started again and again and use up a processor.
What we do: the daemon waits before it serves. After the first and the second death in a row it does not wait, nor after
a handover; each further death doubles the time, up to :data:`LONGEST`. The count is in the instance's state. A daemon
that ends with an error waits before its end, because it may have no state in which its death could be counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from xengt_dm.errors import ExitCode, XengtError
from xengt_dm.service.notify import Notifier

#: A daemon that has served for so long resets the count of deaths.
SETTLED_SECONDS: Final = 10.0
#: After up to so many deaths in a row, the next daemon does not wait.
FREE: Final = 2
FIRST: Final = 0.1
LONGEST: Final = 5.0
#: Before the end of a daemon that failed.
FAILURE_SECONDS: Final = 0.5
#: Errors that a restart cannot correct. The unit has these statuses in RestartPreventExitStatus=.
FINAL: Final = frozenset({ExitCode.USAGE, ExitCode.DATA, ExitCode.NO_DOMAIN, ExitCode.PERMISSION, ExitCode.CONFIG})


def delay(deaths: int) -> float:
    """Returns for how many seconds a daemon waits after so many deaths in a row."""
    if deaths <= FREE:
        return 0.0
    return float(min(FIRST * 2 ** min(deaths - FREE - 1, 16), LONGEST))


@contextmanager
def waiting_after_failure(notifier: Notifier, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Waits if the body raises an error that the manager answers by a restart."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, XengtError) and error.exit_code in FINAL):
            notifier.status(f"ends in {FAILURE_SECONDS:g} s because of an error: {error}")
            sleep(FAILURE_SECONDS)
        raise
