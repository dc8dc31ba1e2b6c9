"""The journal: what a successor must know of the requests that this process began. The theory is in ``journal.h``.

A request that may be done twice has no record. The others tell the journal of each step, in this order:

==============================  ==============================================  =====================================
what happens                    the record says                                 a successor
==============================  ==============================================  =====================================
the request is taken            nothing                                         does it from its beginning
an element copies a value       :meth:`Journal.copies`: the value               stores this value, and goes on
a device changes its state      :meth:`Journal.change`: the words, then "done"  stores the words if they may be lost
others are served in between    :meth:`Journal.done`: the elements so far       goes on with the next element
a store is made, not answered   :meth:`Journal.done`: its element as well       goes on with the next element
==============================  ==============================================  =====================================

The bus sets the vCPU and the element whose request is being done, so devices need not pass them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from xengt_dm._core import ffi, lib
from xengt_dm.errors import DataError
from xengt_dm.pointers import pointer_into
from xengt_dm.units import CData

RECORD_BYTES: Final = ffi.sizeof("xd_journal_record")
#: How many processes may begin a request. The last of them does not do it, since it may be what kills them. A daemon
#: that is killed for another reason counts as well, so the limit is higher than the two or three deaths that would show
#: a bug.
MOST_ATTEMPTS: Final = 10
_WORD_BYTES: Final = 8


class Progress(NamedTuple):
    """How far a predecessor got with a request.

    ``done``: how many of its elements are done; one, if the request is for one access. ``copied``: for the next
    element, the value that it copies and what its destination held before, if that much is known.
    """

    done: int = 0
    copied: tuple[int, int] | None = None


class Journal:
    """The records of all vCPUs, in ``records``. ``state`` is what the words of :meth:`change` are in.

    Both are writable, and ``records`` has RECORD_BYTES for each vCPU. Raises ValueError if it has not.
    """

    def __init__(self, records: memoryview, state: memoryview) -> None:
        if records.nbytes % RECORD_BYTES or state.nbytes % _WORD_BYTES:
            raise ValueError(f"{records.nbytes} bytes are no records, or {state.nbytes} no words")
        self._memory = (records, state)
        self._vcpus = records.nbytes // RECORD_BYTES
        #: The ``xd_journal_record *`` of vCPU 0, for the functions that take requests.
        self.pointer = pointer_into("xd_journal_record *", records)
        #: The ``uint64_t *`` to the words of :meth:`change`.
        self.words = pointer_into("uint64_t *", state)
        self._in_hand: tuple[int, int] | None = None

    @classmethod
    def private(cls, vcpus: int = lib.XD_SLOTS_PER_PAGE) -> Journal:
        """Returns a journal that no successor finds, and whose words nobody sees."""
        return cls(memoryview(bytearray(vcpus * RECORD_BYTES)), memoryview(bytearray(_WORD_BYTES)))

    # What happens to a request

    def in_hand(self, vcpu: int, element: int) -> None:
        """From here to :meth:`put_down`, what changes is due to an element of this vCPU's request."""
        self._in_hand = (vcpu, element)

    def put_down(self) -> None:
        """From here on, what changes is due to no request."""
        self._in_hand = None

    @property
    def record(self) -> tuple[CData, int]:
        """The ``xd_journal_record *`` of the request in hand, or NULL, and its element: for changes that C makes."""
        if self._in_hand is None:
            return ffi.NULL, 0
        vcpu, element = self._in_hand
        return self.pointer + vcpu, element

    def change(self, word: int, value: int) -> None:
        """Stores ``value`` into word number ``word`` of the state, once, whenever this process dies."""
        if self._in_hand is None:
            self.words[word] = value
            return
        vcpu, element = self._in_hand
        words = ffi.new("xd_journal_word[1]", [(word, value)])
        lib.xd_journal_commit(self.pointer + vcpu, element, words, 1, self.words)

    def changes_of(self, offset: int) -> Callable[[int, int], None]:
        """Returns :meth:`change` for the words from ``offset`` on, which is in bytes."""
        first = offset // _WORD_BYTES
        return lambda word, value: self.change(first + word, value)

    def copies(self, vcpu: int, element: int, value: int, old: int) -> None:
        """An element of a vCPU's request copies ``value``; its destination holds ``old``."""
        lib.xd_journal_value(self.pointer + vcpu, element, value, old)

    def done(self, vcpu: int, elements: int) -> None:
        """So many elements of a vCPU's request are done."""
        if elements:
            lib.xd_journal_done(self.pointer + vcpu, elements - 1)

    # For a successor

    def take_over(self, regions: Iterable[tuple[int, int]]) -> None:
        """Finishes the change that the predecessor was in the middle of.

        ``regions``: offset and size in bytes of each part of the state that requests change. Must be called before
        anything reads these parts. Raises DataError if a record cannot be one of a predecessor; then
        nothing was changed.

        Facts: an attacker may have written the records, and a record could change another one after that was checked.
        What we do: all records are copied and checked before the first word is stored, and the copies are stored.
        """
        words = [(offset // _WORD_BYTES, size // _WORD_BYTES) for offset, size in regions]
        allowed = ffi.new("xd_journal_region[]", words)
        copies = ffi.new("xd_journal_copy[]", self._vcpus)
        for vcpu in range(self._vcpus):
            if not lib.xd_journal_read(self.pointer + vcpu, allowed, len(allowed), copies + vcpu):
                raise DataError(f"the journal's record of vCPU {vcpu} is damaged")
        for vcpu in range(self._vcpus):
            lib.xd_journal_finish(self.pointer + vcpu, copies + vcpu, self.words)

    def progress(self, vcpu: int) -> Progress:
        """Returns how far a vCPU's request got. After :meth:`take_over`."""
        record = self.pointer[vcpu]
        phase = record.commit & 0xFF
        element = record.commit >> lib.XD_JOURNAL_ELEMENT_SHIFT
        if phase == lib.XD_JOURNAL_VALUE:
            half = record.halves[record.commit >> lib.XD_JOURNAL_HALF_SHIFT & 1]
            return Progress(element, (half.value, half.old))
        return Progress(element + 1 if phase == lib.XD_JOURNAL_DONE else 0)

    def forgive(self, vcpu: int) -> None:
        """A successor will begin a vCPU's request again, but not because the request killed anybody."""
        self.pointer[vcpu].attempts = 0

    def begin_again(self, vcpu: int) -> bool:
        """Counts an attempt to do a request that a predecessor began. Returns False if there were too many."""
        record = self.pointer[vcpu]
        record.attempts = min(record.attempts, MOST_ATTEMPTS) + 1
        return bool(record.attempts + 1 < MOST_ATTEMPTS)  # the first attempt was before all of these
