"""The log is written to from several threads: the watcher starts instances in worker threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from xengt_dm.log.log import StreamSink

THREADS, EVENTS = 8, 2000


def test_threads_do_not_disturb_each_other() -> None:
    with open(os.devnull, "w") as stream, ThreadPoolExecutor(THREADS) as executor:
        sink = StreamSink(stream)

        def write(thread: int) -> None:
            for number in range(EVENTS):
                sink.msg(f"event {number} of thread {thread}")

        for future in [executor.submit(write, thread) for thread in range(THREADS)]:
            future.result()
        assert sink.lost == 0
