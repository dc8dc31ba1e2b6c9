"""What the memory of a trace's guest contains, in bounded space: pages that were used lately, and digests of others."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from xengt_dm.units import PAGE_SIZE

#: Pages that are kept: 64 MiB.
PAGES: Final = 16384
#: Digests of other pages that are kept: some 32 MiB. The default quota has a third as many tables.
DIGESTS: Final = 196608
_ZEROS: Final = bytes(PAGE_SIZE)
#: Bytes of a digest.
_DIGEST: Final = 8


class TraceMemory:
    """Pages by gfn. ``key`` makes the digests unpredictable; ``pages`` and ``digests`` are how many are kept at most.

    The content of a page is *known*, or it is known by its *digest* alone, or it is *unknown*.
    """

    def __init__(self, key: bytes, pages: int = PAGES, digests: int = DIGESTS) -> None:
        self._key = key
        self._digest_of_zeros = self._digest(_ZEROS)
        #: Known pages, the one that was used longest ago first.
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        #: Digests of other pages, the oldest first; None for a page that is unknown.
        self._digests: OrderedDict[int, int | None] = OrderedDict()
        self._most_pages = pages
        self._most_digests = digests
        #: Something was forgotten altogether, so a page that is neither here nor there is unknown, else it is zeros.
        self._forgot = False

    def replace(self, gfn: int, after: bytes) -> tuple[bool, bytes | None]:
        """Notes that a page contains ``after``.

        Returns whether it contained that before, and what it contained, None if that is not known.
        """
        before = self._pages.get(gfn)
        if before is not None:
            self._pages.move_to_end(gfn)
            if before == after:
                return True, before
            self._pages[gfn] = after
            return False, before
        same = False
        if gfn in self._digests:
            digest = self._digests.pop(gfn)
            same = digest is not None and digest == self._digest(after)
        elif not self._forgot:
            before = _ZEROS
            same = after == _ZEROS
        self._keep(gfn, after)
        return same, before

    def store(self, gpa: int, data: bytes) -> None:
        """Notes that ``data``, at most a page, was stored at ``gpa``."""
        gfn, start = divmod(gpa, PAGE_SIZE)
        here = data[: PAGE_SIZE - start]
        page = self._pages.get(gfn)
        if page is None and gfn not in self._digests and not self._forgot:
            page = _ZEROS
        if page is not None:
            self._keep(gfn, page[:start] + here + page[start + len(here) :])
        elif gfn in self._digests:
            self._digests[gfn] = None
        if len(here) < len(data):
            self.store((gfn + 1) * PAGE_SIZE, data[len(here) :])

    def clear(self, gfn: int, count: int) -> None:
        """Notes that ``count`` frames from ``gfn`` on contain zeros."""
        for frame in range(gfn, gfn + count):
            self._pages.pop(frame, None)
            self._digests.pop(frame, None)
            if self._forgot:
                self._keep_digest(frame, self._digest_of_zeros)

    def _keep(self, gfn: int, page: bytes) -> None:
        self._pages[gfn] = page
        self._pages.move_to_end(gfn)
        if len(self._pages) > self._most_pages:
            oldest, content = self._pages.popitem(last=False)
            self._keep_digest(oldest, self._digest(content))

    def _keep_digest(self, gfn: int, digest: int | None) -> None:
        self._digests[gfn] = digest
        if len(self._digests) > self._most_digests:
            self._digests.popitem(last=False)
            self._forgot = True

    def _digest(self, page: bytes) -> int:
        return int.from_bytes(blake2b(page, digest_size=_DIGEST, key=self._key).digest())
