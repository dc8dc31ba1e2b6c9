"""What of the file of frames is mapped where in this process."""

from __future__ import annotations

from array import array


class MappedFrames:
    """A table of mappings: runs of pages of this process, and the sim's word for each page (Call.GET_FRAMES)."""

    def __init__(self) -> None:
        #: By the first page of a run. No two overlap.
        self._runs: dict[int, array[int]] = {}

    def at(self, page: int, count: int) -> array[int] | None:
        """The words of a run that is exactly there."""
        run = self._runs.get(page)
        return run if run is not None and len(run) == count else None

    def add(self, page: int, words: array[int]) -> None:
        """A run of pages, none of which is in the table."""
        self._runs[page] = words

    def take(self, page: int, count: int) -> array[int]:
        """Remove some pages, whatever runs they are of; returns the words of those that were in the table."""
        whole = self.at(page, count)
        if whole is not None:
            del self._runs[page]
            return whole
        taken: array[int] = array("Q")
        for first, words in list(self._runs.items()):
            start, end = max(first, page), min(first + len(words), page + count)
            if start >= end:
                continue
            del self._runs[first]
            taken += words[start - first : end - first]
            if first < start:
                self._runs[first] = words[: start - first]
            if end < first + len(words):
                self._runs[end] = words[end - first :]
        return taken
