"""Running traces through ``xengt-dm replay`` and holding what it says against the reference; cutting failures down."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .compare import compare
from .machine import Trace, expected, save

#: What a trace may take at most, whole process (seconds).
TIME_LIMIT = 10.0
MODES = ("strict", "relaxed")


def replay(trace: Trace, mode: str, max_tables: int | None = None, time_limit: float = TIME_LIMIT) -> dict[str, Any]:
    """Run the command as a user would. The output, with ``failure`` if it is not what a good run leaves."""
    with tempfile.TemporaryDirectory() as directory:
        path, out = Path(directory, "trace.jsonl"), Path(directory, "out.json")
        save(path, trace)
        command = [sys.executable, "-m", "xengt_dm", "replay", str(path), "--mode", mode, "--dump", str(out)]
        if max_tables is not None:
            command += ["--max-tables", str(max_tables)]
        started = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=time_limit, check=False)
        except subprocess.TimeoutExpired:
            return {"failure": f"not done after {time_limit} s", "seconds": time_limit}
        seconds = time.monotonic() - started
        output: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
        if done.returncode:
            output["failure"] = f"exit status {done.returncode}: {done.stderr.strip()[-2000:]}"
        return {**output, "seconds": seconds}


def differences(
    trace: Trace, mode: str, max_tables: int | None = None, run: Callable[..., dict[str, Any]] = replay
) -> list[str]:
    """Everything that is wrong with how the trace is replayed in that mode."""
    output = run(trace, mode, max_tables)
    found = [output["failure"]] if "failure" in output else []
    if "dumps" in output:
        found += compare(expected(trace), output, mode, max_tables)
    return found


def minimised(trace: Trace, fails: Callable[[Trace], bool]) -> Trace:
    """A trace that still fails and of which no event can be left out: halves first, then single events (ddmin)."""
    header, events = trace[0], trace[1:]
    chunk = max(1, len(events) // 2)
    while True:
        position, shorter = 0, False
        while position < len(events):
            attempt = events[:position] + events[position + chunk :]
            if fails([header, *attempt]):
                events, shorter = attempt, True
            else:
                position += chunk
        if chunk == 1 and not shorter:
            return [header, *_simplified(header, events, fails)]
        chunk = max(1, chunk // 2)


def _simplified(header: dict[str, Any], events: Trace, fails: Callable[[Trace], bool]) -> Trace:
    """Events one by one with plainer values, where the trace still fails with them."""
    for number, event in enumerate(events):
        for key, plainer in (("vcpu", None), ("count", 2), ("count", 1), ("value", 3), ("value", 0), ("va", 0)):
            if key not in event or event[key] == plainer:
                continue
            attempt = {name: value for name, value in event.items() if name != key}
            if plainer is not None:
                attempt[key] = plainer
            if fails([header, *events[:number], attempt, *events[number + 1 :]]):
                event = events[number] = attempt
    return events
