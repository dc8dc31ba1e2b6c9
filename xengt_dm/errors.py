"""The error classes. Each says who is to blame, and which exit status a command then ends with.

* :class:`GuestError`: the guest did something undefined. It is counted and answered, and never leaves the bus.
* :class:`CallError`: a call to the hypervisor or to the host failed, for one of two reasons that are handled
  differently. :class:`DomainGoneError`: there is no such domain or ioreq server any more, so there is nothing left to
  undo. :class:`HostError`: every other reason. The daemon ends in order; the exit code tells the supervisor why.
* :class:`DataError`, :class:`ConfigError`, :class:`UsageError`: a person gave us wrong data, a wrong configuration or
  wrong arguments. The message says what is wrong, where, and what to do.

A bug in xengt-dm is an ``AssertionError`` and has no class here.
"""

from __future__ import annotations

import enum
import errno as errno_module
import os


class ExitCode(enum.IntEnum):
    """Exit statuses. They are those of sysexits.h where it has one that fits. Each has one meaning."""

    OK = 0
    #: An audit, or the guest of `demo`, found that the shadow or the guest's memory is wrong.
    DIFFERS = 1
    USAGE = 64
    DATA = 65
    NO_DOMAIN = 68
    UNAVAILABLE = 69
    INTERNAL = 70
    #: What was asked for has to wait until something else ends.
    BUSY = 75
    #: A daemon is there and did not answer in time. sysexits.h has EX_PROTOCOL here.
    SILENT = 76
    PERMISSION = 77
    CONFIG = 78
    #: A daemon has left its domain to a successor, which must be started at once.
    HANDOVER = 79


#: The claim of a domain without HAP. What is wrong is the domain's configuration, and no restart of ours mends that.
_NO_HAP = ("xendevicemodel_map_mem_type_to_ioreq_server", errno_module.EOPNOTSUPP)


class XengtError(Exception):
    """The base of all errors that this project raises on purpose. A command ends with ``exit_code``."""

    exit_code = ExitCode.INTERNAL


class GuestError(XengtError):
    """The guest did something undefined. The bus catches it. ``reason`` is the counter that counts it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UsageError(XengtError):
    """A command or a request has a wrong argument."""

    exit_code = ExitCode.USAGE


class DataError(XengtError):
    """A file that a person gave us has wrong content, or something that a request names does not exist."""

    exit_code = ExitCode.DATA


class ConfigError(XengtError):
    """The configuration is wrong."""

    exit_code = ExitCode.CONFIG


class BusyError(XengtError):
    """What was asked for cannot be done while something else goes on; the message says what, and how to end it."""

    exit_code = ExitCode.BUSY


class CallError(XengtError):
    """A call to the hypervisor, to its libraries or to the host failed: a HostError or a DomainGoneError.

    ``call`` is the library function, ``domid`` the domain or None if the call has none, and ``errno`` the positive
    errno. ``meaning`` says what that errno means for this call; by default it is the text of strerror(3).
    """

    def __init__(self, call: str, domid: int | None, errno: int, meaning: str | None = None) -> None:
        self.call = call
        self.domid = domid
        self.errno = errno
        self.meaning = meaning or os.strerror(errno)
        about = "" if domid is None else f" for domain {domid}"
        # Of the two names that Linux has for it, Python gives ENOTSUP, and Xen's sources say the other.
        name = "EOPNOTSUPP" if errno == errno_module.EOPNOTSUPP else errno_module.errorcode.get(errno, str(errno))
        super().__init__(f"{call}{about}: {name}: {self.meaning}")


class HostError(CallError):
    """A call failed for another reason than that the domain is gone."""

    @property
    def exit_code(self) -> ExitCode:  # type: ignore[override]
        """CONFIG if the domain has no HAP, PERMISSION after EPERM or EACCES, and UNAVAILABLE otherwise."""
        if (self.call, self.errno) == _NO_HAP:
            return ExitCode.CONFIG
        if self.errno in (errno_module.EPERM, errno_module.EACCES):
            return ExitCode.PERMISSION
        return ExitCode.UNAVAILABLE


class DomainGoneError(CallError):
    """A call failed because the domain, or our ioreq server in it, does not exist any more.

    That is the orderly end of a daemon's life. At its beginning it is an error that no restart mends, so it has a
    status of its own.
    """

    exit_code = ExitCode.NO_DOMAIN
