"""Every metric that `xengt-dm exporter` shows: the one table that the collector, the documents and the checks go by.

A row's ``source`` says where its samples come from: values of its labels (without ``domid``) -> name of a value in a
:class:`.stats_reader.Reading`. Labels that no key gives a value are texts of the reading by the label's own name.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self


class Kind(enum.Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class LeftOut(enum.Enum):
    """Why a stats page is of no use; ``words`` say what that means."""

    words: str

    ENDED = "ended", "its daemon ended in order; no fault"
    FOREIGN = "foreign", "the file is of another program, another version or another domain"
    MISSING = "missing", "a run directory without one"
    STALE = "stale", "its daemon died: that process is no more, or the pid is another's by now"
    TRUNCATED = "truncated", "the file is shorter or longer than a page"
    UNREADABLE = "unreadable", "not permitted, or an error of the file system"

    def __new__(cls, value: str, words: str) -> Self:
        self = object.__new__(cls)
        self._value_ = value
        self.words = words
        return self


@dataclass(frozen=True)
class Metric:
    """One family of series. ``unit`` is of its values; ``help`` is one sentence, without a full stop."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    source: Mapping[tuple[str, ...], str]

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus stores it."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


@dataclass(frozen=True)
class Route:
    """What became of a request; ``name`` is that of its ``xd_route`` in lower case."""

    name: str
    kind: str
    path: str
    words: str


ROUTES: Final = (
    Route("leaf_store", "store", "leaf", "stored to a page table; one call of C"),
    Route("directory_store", "store", "directory", "stored to a page directory; tables may come and go"),
    Route("untracked_store", "store", "untracked", "stored to a frame that was no longer a table"),
    Route("dropped_store", "store", "dropped", "stored to what is no RAM, or no longer"),
    Route("register_read", "register_read", "device", "read a register"),
    Route("register_write", "register_write", "device", "wrote one; that may create or destroy an address space"),
    Route("invalidate", "invalidate", "frames", "said that the guest gave frames back"),
    Route("refused", "other", "refused", "is malformed, or of a kind that is not served"),
)
_DOMAIN: Final = ("domid",)

COUNTER, GAUGE, HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

METRICS: Final = (
    # The daemon
    Metric(
        "xengt_up",
        GAUGE,
        "bool",
        _DOMAIN,
        "1 if a daemon serves the domain, 0 if one did and died, or if its stats page is of no use",
        {(): "up"},
    ),
    Metric(
        "xengt_instance_info",
        GAUGE,
        "info",
        ("domid", "version", "generation"),
        "Always 1; the version of the daemon and the generation of its graphics device",
        {(): "one"},
    ),
    Metric(
        "xengt_start_time_seconds",
        GAUGE,
        "seconds",
        _DOMAIN,
        "When the daemon started, in seconds since 1970",
        {(): "start_time"},
    ),
    Metric(
        "xengt_restarts_total",
        COUNTER,
        "daemons",
        _DOMAIN,
        "Daemons that served the domain before this one, from the same run directory",
        {(): "predecessors"},
    ),
    Metric(
        "xengt_heartbeat_age_seconds",
        GAUGE,
        "seconds",
        _DOMAIN,
        "Time since the daemon's event loop last looked after its domain, as it does every domain.check_interval_ms",
        {(): "heartbeat_age"},
    ),
    Metric("xengt_vcpus", GAUGE, "vCPUs", _DOMAIN, "vCPUs of the domain, each with one ioreq slot", {(): "vcpus"}),
    Metric(
        "xengt_relaxed",
        GAUGE,
        "bool",
        _DOMAIN,
        "1 if shadows follow at submissions (relaxed), 0 if at every store (strict)",
        {(): "relaxed"},
    ),
    Metric(
        "xengt_quiesced",
        GAUGE,
        "bool",
        _DOMAIN,
        "1 while the daemon has let go of every frame, so that the domain can be saved or migrated",
        {(): "quiesced"},
    ),
    # Requests
    Metric(
        "xengt_ioreqs_total",
        COUNTER,
        "ioreqs",
        ("domid", "kind", "path"),
        "ioreqs answered, by what they asked for and by what became of them",
        {(route.kind, route.path): f"{route.name}_answers" for route in ROUTES},
    ),
    Metric(
        "xengt_ioreq_duration_seconds",
        HISTOGRAM,
        "seconds",
        ("domid", "kind", "path"),
        "Time from when an ioreq was taken out of its slot until its answer was in it, while its vCPU waits",
        {(route.kind, route.path): f"{route.name}_times" for route in ROUTES},
    ),
    Metric(
        "xengt_ioreqs_pending",
        GAUGE,
        "ioreqs",
        _DOMAIN,
        "ioreqs that are taken and not answered",
        {(): "pending"},
    ),
    Metric(
        "xengt_ioreq_oldest_pending_seconds",
        GAUGE,
        "seconds",
        _DOMAIN,
        "How long the longest waiting of them has waited since it was taken; 0 if there is none",
        {(): "oldest_pending"},
    ),
    Metric(
        "xengt_traps_total",
        COUNTER,
        "accesses",
        ("domid", "target"),
        "Accesses of the guest that Xen trapped, each repetition for itself",
        {("memory",): "store_traps", ("registers",): "mmio_traps"},
    ),
    Metric(
        "xengt_invalidate_requests_total",
        COUNTER,
        "ioreqs",
        _DOMAIN,
        "Times that Xen said that the guest gave frames back",
        {(): "invalidate_requests"},
    ),
    Metric(
        "xengt_straggler_stores_total",
        COUNTER,
        "stores",
        _DOMAIN,
        "Trapped stores to frames that were no longer tables; performed all the same",
        {(): "straggler_stores"},
    ),
    Metric(
        "xengt_dropped_stores_total",
        COUNTER,
        "stores",
        _DOMAIN,
        "Stores of the guest or its GPU that went nowhere, because there is no RAM or the page is read-only",
        {(): "dropped_stores"},
    ),
    Metric("xengt_wakeups_total", COUNTER, "events", _DOMAIN, "Times that events woke the serve loop", {(): "wakeups"}),
    Metric(
        "xengt_spurious_events_total",
        COUNTER,
        "events",
        _DOMAIN,
        "Events that came without an ioreq",
        {(): "spurious_events"},
    ),
    # Shadows
    Metric(
        "xengt_spaces", GAUGE, "spaces", _DOMAIN, "Address spaces that the guest announced and uses", {(): "spaces"}
    ),
    Metric("xengt_tables", GAUGE, "tables", _DOMAIN, "Shadow tables now", {(): "tables"}),
    Metric(
        "xengt_tables_limit",
        GAUGE,
        "tables",
        _DOMAIN,
        "The quota: how many shadow tables there may be",
        {(): "max_tables"},
    ),
    Metric("xengt_protected_pages", GAUGE, "pages", _DOMAIN, "Guest pages whose stores trap", {(): "protected_pages"}),
    Metric(
        "xengt_opens_total",
        COUNTER,
        "pages",
        _DOMAIN,
        "Times that a page table was let go writable until the next submission (relaxed)",
        {(): "opened_pages"},
    ),
    Metric(
        "xengt_syncs_total",
        COUNTER,
        "pages",
        _DOMAIN,
        "Times that such a table was protected and compared again",
        {(): "syncs"},
    ),
    Metric(
        "xengt_submissions_total",
        COUNTER,
        "submissions",
        _DOMAIN,
        "Times that a space had to be in line with the guest's tables: for the GPU, or for who reads a shadow",
        {(): "submissions"},
    ),
    Metric(
        "xengt_submission_sync_seconds",
        HISTOGRAM,
        "seconds",
        _DOMAIN,
        "Time to bring a space in line at a submission",
        {(): "sync_times"},
    ),
    Metric(
        "xengt_quota_refusals_total",
        COUNTER,
        "entries",
        _DOMAIN,
        "Entries that map nothing because the quota was used up",
        {(): "quota_entries"},
    ),
    Metric(
        "xengt_reclaimed_spaces_total",
        COUNTER,
        "spaces",
        _DOMAIN,
        "Times that a space lost its shadows to make room for another",
        {(): "reclaimed_spaces"},
    ),
    # What went wrong
    Metric(
        "xengt_guest_errors_total",
        COUNTER,
        "errors",
        ("domid", "reason"),
        "What the guest did that means nothing; answered, and otherwise ignored",
        {
            ("malformed_request",): "malformed_requests",
            ("unknown_request",): "unknown_requests",
            ("invalid_entry",): "invalid_entries",
            ("unsupported_entry",): "unsupported_entries",
            ("ignored_notification",): "ignored_notifications",
        },
    ),
    Metric(
        "xengt_unprotectable_entries_total",
        COUNTER,
        "entries",
        _DOMAIN,
        "Entries that map nothing because Xen did not let the table be protected",
        {(): "unprotectable_entries"},
    ),
    Metric(
        "xengt_vanished_pages_total",
        COUNTER,
        "pages",
        _DOMAIN,
        "Times that a page of the guest was gone when it was to be read or written",
        {(): "vanished_pages"},
    ),
    Metric("xengt_audits_total", COUNTER, "audits", _DOMAIN, "Audits of one space each", {(): "audits"}),
    Metric(
        "xengt_audit_mismatches_total",
        COUNTER,
        "entries",
        _DOMAIN,
        "Entries in which a shadow differed from the guest's table; any is a bug in xengt-dm",
        {(): "audit_mismatches"},
    ),
    Metric(
        "xengt_audit_overdue_total",
        COUNTER,
        "entries",
        _DOMAIN,
        "Entries that still mapped nothing though nothing stood in their way; any is a bug in xengt-dm",
        {(): "audit_overdue"},
    ),
    # The exporter
    Metric(
        "xengt_build_info", GAUGE, "info", ("version",), "Always 1; the version of the exporter itself", {(): "one"}
    ),
    Metric(
        "xengt_exporter_pages_left_out",
        GAUGE,
        "pages",
        ("reason",),
        "Stats pages that this scrape could not use, by why not",
        {(reason.value,): f"left_out_{reason.value}" for reason in LeftOut},
    ),
    Metric(
        "xengt_exporter_read_seconds",
        GAUGE,
        "seconds",
        (),
        "Time that this scrape took to read all stats pages",
        {(): "read_time"},
    ),
)


def markdown() -> str:
    """The tables as docs/metrics.md has them."""
    lines = ["| metric | kind | unit | labels | what it is |", "|---|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind.value} | {metric.unit} | {labels} | {metric.help} |")
    lines += ["", "| `kind` | `path` | a request |", "|---|---|---|"]
    lines += [f"| `{route.kind}` | `{route.path}` | {route.words} |" for route in ROUTES]
    lines += ["", "| `reason` | a page left out |", "|---|---|"]
    lines += [f"| `{reason.value}` | {reason.words} |" for reason in LeftOut]
    return "\n".join(lines) + "\n"
