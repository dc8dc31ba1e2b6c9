"""Every metric that ``xengt-dm exporter`` serves. The collector, the documents and the tests all use this table.

A row's ``source`` has a key for each series of a domain: the values of the row's labels, without ``domid``. For each
key it names a value in a :class:`~xengt_dm.stats.reader.Reading`, which also has the values of other labels.
To add a counter: add its field to ``xd_counters`` (cffi_build/core/base/stats.h), increment it, add a row here, and
write docs/metrics.md and docs/logs.md again (docs/metrics.md says how). ``XD_STATS_VERSION`` changes only if a field
changes its meaning or its place while the size of ``xd_stats`` stays the same: a reader compares the size, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from xengt_dm.stats.metric import Kind, LogEvent, Metric
from xengt_dm.stats.page import PageProblem


class Route(NamedTuple):
    """What became of a request. ``name`` is the name of its ``xd_route`` in lower case."""

    name: str
    kind: str
    path: str
    text: str


ROUTES: Final = (
    Route("leaf_store", "store", "leaf", "stored to a leaf table; served by one call of C"),
    Route("directory_store", "store", "directory", "stored to a directory; shadow tables may be created and freed"),
    Route("untracked_store", "store", "untracked", "stored to a frame that was no longer a table (a late store)"),
    Route("dropped_store", "store", "dropped", "stored to a frame that is not RAM, or not any more"),
    Route("register_read", "register_read", "device", "read a register"),
    Route("register_write", "register_write", "device", "wrote a register; may create or destroy an address space"),
    Route("invalidate", "invalidate", "frames", "said that the guest gave frames back"),
    Route("refused", "other", "refused", "was malformed, or of a kind that is not served"),
)


def _per_domain(name: str, kind: Kind, unit: str, source: str, text: str, event: LogEvent | None = None) -> Metric:
    """A metric with one series for each domain, whose value in the reading is ``source``."""
    return Metric(name, kind, unit, ("domid",), text, {(): source}, {source: event} if event else {})


COUNTER, GAUGE, HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

METRICS: Final = (
    # The daemon
    _per_domain(
        "xengt_up", GAUGE, "bool", "up", "1 while the daemon is alive, 0 if it died or its stats page cannot be used"
    ),
    Metric(
        "xengt_instance_info",
        GAUGE,
        "info",
        ("domid", "version", "generation"),
        "Always 1; the labels have the version of the daemon and the generation of the virtual GPU",
        {(): "one"},
    ),
    _per_domain(
        "xengt_start_time_seconds",
        GAUGE,
        "seconds",
        "start_time",
        "When the daemon started, in seconds since 1970-01-01 UTC",
    ),
    _per_domain(
        "xengt_restarts_total",
        COUNTER,
        "daemons",
        "predecessors",
        "Number of daemons that served the domain before this one, counted in the same run directory",
    ),
    _per_domain(
        "xengt_heartbeat_age_seconds",
        GAUGE,
        "seconds",
        "heartbeat_age",
        "Time since the daemon's event loop last checked its domain: domain.check_interval_ms, or more while idle",
    ),
    _per_domain("xengt_vcpus", GAUGE, "vCPUs", "vcpus", "vCPUs of the domain; each has one ioreq slot"),
    _per_domain("xengt_relaxed", GAUGE, "bool", "relaxed", "1 in relaxed mode, 0 in strict mode"),
    _per_domain(
        "xengt_quiesced",
        GAUGE,
        "bool",
        "quiesced",
        "1 while the daemon is quiesced: it protects no page, so the domain can be saved or migrated",
    ),
    # Requests
    Metric(
        "xengt_ioreqs_total",
        COUNTER,
        "ioreqs",
        ("domid", "kind", "path"),
        "ioreqs answered, by what they asked for (kind) and what became of them (path)",
        {(route.kind, route.path): f"{route.name}_answers" for route in ROUTES},
    ),
    Metric(
        "xengt_ioreq_duration_seconds",
        HISTOGRAM,
        "seconds",
        ("domid", "kind", "path"),
        "Time from taking an ioreq out of its slot until its answer is in the slot; the vCPU waits meanwhile",
        {(route.kind, route.path): f"{route.name}_times" for route in ROUTES},
    ),
    _per_domain(
        "xengt_ioreqs_pending", GAUGE, "ioreqs", "pending", "ioreqs that the daemon has taken and not answered yet"
    ),
    _per_domain(
        "xengt_ioreq_oldest_pending_seconds",
        GAUGE,
        "seconds",
        "oldest_pending",
        "Time since the oldest of the pending ioreqs was taken; 0 if none is pending",
    ),
    Metric(
        "xengt_traps_total",
        COUNTER,
        "accesses",
        ("domid", "target"),
        "Accesses of the guest that Xen trapped; each repetition of a rep instruction counts",
        {("memory",): "store_traps", ("registers",): "mmio_traps"},
    ),
    _per_domain(
        "xengt_invalidate_requests_total",
        COUNTER,
        "ioreqs",
        "invalidate_requests",
        "Requests by which Xen said that the guest gave frames back (IOREQ_TYPE_INVALIDATE)",
    ),
    _per_domain(
        "xengt_straggler_stores_total",
        COUNTER,
        "stores",
        "straggler_stores",
        "Late stores: trapped stores to frames that were no longer tables; they were performed in memory",
    ),
    _per_domain(
        "xengt_dropped_stores_total",
        COUNTER,
        "stores",
        "dropped_stores",
        "Stores of the guest or its GPU that were dropped, because the frame is not RAM or the page is read-only",
        LogEvent(
            "guest.dropped_stores",
            "warning",
            "the guest's CPUs or its GPU stored to a frame that is not RAM, or to a read-only page",
        ),
    ),
    _per_domain("xengt_wakeups_total", COUNTER, "events", "wakeups", "Times that an event woke the serve loop"),
    _per_domain(
        "xengt_bursts_total",
        COUNTER,
        "bursts",
        "bursts",
        "Bursts: calls of the serve loop into C, each of which serves any number of ioreqs (docs/serving.md)",
    ),
    Metric(
        "xengt_served_ioreqs_total",
        COUNTER,
        "ioreqs",
        ("domid", "by"),
        "ioreqs that bursts took, by who served them: C alone, or Python",
        {("c",): "burst_requests", ("python",): "handed_requests"},
    ),
    _per_domain(
        "xengt_spurious_events_total", COUNTER, "events", "spurious_events", "Events for which no slot held an ioreq"
    ),
    # Shadows
    _per_domain(
        "xengt_spaces", GAUGE, "spaces", "spaces", "Address spaces that the guest has announced and not destroyed"
    ),
    _per_domain("xengt_tables", GAUGE, "tables", "tables", "Shadow tables that exist now"),
    _per_domain("xengt_tables_limit", GAUGE, "tables", "max_tables", "Quota of shadow tables (shadow.max_tables)"),
    _per_domain("xengt_protected_pages", GAUGE, "pages", "protected_pages", "Guest pages that are write-protected now"),
    _per_domain(
        "xengt_opens_total",
        COUNTER,
        "pages",
        "opened_pages",
        "Times that stores had a leaf table unsynced: made writable, and read at each submission (relaxed mode)",
    ),
    _per_domain(
        "xengt_unsynced_births_total",
        COUNTER,
        "pages",
        "unsynced_births",
        "Leaf tables that were unsynced from the start, so that no store to them trapped (relaxed mode)",
    ),
    _per_domain(
        "xengt_settled_tables_total",
        COUNTER,
        "pages",
        "settled_tables",
        "Times that an unsynced table was resynced, write-protected again, because it had stayed unchanged",
    ),
    _per_domain(
        "xengt_syncs_total",
        COUNTER,
        "pages",
        "syncs",
        "Times that a submission read an unsynced table and compared it with its shadow",
    ),
    _per_domain(
        "xengt_submissions_total",
        COUNTER,
        "submissions",
        "submissions",
        "Submissions: times that the shadow of an address space was synced with the guest's tables",
    ),
    _per_domain(
        "xengt_submission_sync_seconds",
        HISTOGRAM,
        "seconds",
        "sync_times",
        "Time to sync an address space at a submission",
    ),
    _per_domain(
        "xengt_quota_refusals_total",
        COUNTER,
        "entries",
        "quota_entries",
        "Entries that map nothing because the quota of shadow tables was used up",
        LogEvent("guest.quota_entries", "warning", "entries map nothing because `shadow.max_tables` is too low"),
    ),
    _per_domain(
        "xengt_reclaimed_spaces_total",
        COUNTER,
        "spaces",
        "reclaimed_spaces",
        "Times that the shadow tables of an address space were freed to make room for another space",
        LogEvent(
            "guest.reclaimed_spaces",
            "info",
            "shadow tables of address spaces were freed for other spaces; their next submission builds them again",
        ),
    ),
    _per_domain(
        "xengt_refused_spaces_total",
        COUNTER,
        "spaces",
        "refused_spaces",
        "Announcements of address spaces that were refused because shadow.max_spaces were live",
        LogEvent(
            "guest.refused_spaces",
            "warning",
            "the guest announces more address spaces than `shadow.max_spaces`; these are shadowed at submissions only",
        ),
    ),
    # What went wrong
    Metric(
        "xengt_guest_errors_total",
        COUNTER,
        "errors",
        ("domid", "reason"),
        "Invalid requests and entries of the guest, by reason; they are answered and otherwise ignored",
        {
            ("malformed_request",): "malformed_requests",
            ("unknown_request",): "unknown_requests",
            ("given_up_request",): "given_up_requests",
            ("invalid_entry",): "invalid_entries",
            ("unsupported_entry",): "unsupported_entries",
            ("ignored_notification",): "ignored_notifications",
        },
        {
            "malformed_requests": LogEvent(
                "guest.malformed_requests", "warning", "requests were malformed; reads returned all ones"
            ),
            "unknown_requests": LogEvent(
                "guest.unknown_requests", "warning", "requests were of a kind that is not served"
            ),
            "given_up_requests": LogEvent(
                "guest.given_up_requests",
                "error",
                "requests were answered without effect, because each process that handled them ended",
            ),
            "invalid_entries": LogEvent(
                "guest.invalid_entries", "info", "entries point to a frame that is not RAM; they map nothing"
            ),
            "unsupported_entries": LogEvent(
                "guest.unsupported_entries",
                "warning",
                "entries are 1 GiB pages, which are not supported; they map nothing",
            ),
            "ignored_notifications": LogEvent(
                "guest.ignored_notifications",
                "info",
                "notifications were unknown, or destroyed an address space that does not exist",
            ),
        },
    ),
    _per_domain(
        "xengt_unprotectable_entries_total",
        COUNTER,
        "entries",
        "unprotectable_entries",
        "Entries that map nothing because Xen refused to write-protect the table that they point to",
        LogEvent(
            "guest.unprotectable_entries",
            "warning",
            "entries point to tables in pages that Xen refused to write-protect; they map nothing",
        ),
    ),
    _per_domain(
        "xengt_vanished_pages_total",
        COUNTER,
        "pages",
        "vanished_pages",
        "Times that a guest page was gone when the daemon read or wrote it",
        LogEvent("guest.vanished_pages", "info", "tables were in pages that the guest gave back"),
    ),
    _per_domain("xengt_audits_total", COUNTER, "audits", "audits", "Audits; each compares one address space"),
    _per_domain(
        "xengt_audit_mismatches_total",
        COUNTER,
        "entries",
        "audit_mismatches",
        "Entries in which a shadow table differed from the guest's table; any is a bug in xengt-dm",
        LogEvent(
            "shadow.mismatches",
            "error",
            "an audit found shadow tables that differ from the guest's tables: a bug in xengt-dm, please report it "
            "with a recording",
        ),
    ),
    _per_domain(
        "xengt_audit_overdue_total",
        COUNTER,
        "entries",
        "audit_overdue",
        "Entries that an audit found to map nothing without a reason (overdue); any is a bug in xengt-dm",
        LogEvent(
            "shadow.overdue",
            "error",
            "an audit found entries that map nothing without a reason: a bug in xengt-dm, please report it with a "
            "recording",
        ),
    ),
    _per_domain(
        "xengt_recordings_cut_total",
        COUNTER,
        "recordings",
        "cut_recordings",
        "Recordings that ended by themselves, at a bound, with their daemon or because the file could not be written",
    ),
    _per_domain(
        "xengt_refused_states_total",
        COUNTER,
        "states",
        "refused_states",
        "1 if this daemon took over from one that died, and could not use the state that it left; the log says why",
    ),
    # The exporter
    Metric(
        "xengt_build_info",
        GAUGE,
        "info",
        ("version",),
        "Always 1; the label has the version of the exporter",
        {(): "one"},
    ),
    Metric(
        "xengt_exporter_pages_left_out",
        GAUGE,
        "pages",
        ("reason",),
        "Stats pages that this scrape could not use, by reason",
        {(reason.value,): f"left_out_{reason.value}" for reason in PageProblem},
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


def log_events() -> Iterator[tuple[str, str, str]]:
    """Yields (counter, event, level) for every counter whose growth a daemon logs."""
    for metric in METRICS:
        for counter, event in metric.events.items():
            yield counter, event.name, event.level
