"""Units, types and the spelling of domain ids, as every room uses them. No module may define them again."""

from typing import Any, Final, TypeAlias

#: A C pointer, array or structure owned by cffi; its C type is named where it is used.
CData: TypeAlias = Any

#: A guest frame number (gfn) is a guest physical address (gpa) without its lowest PAGE_SHIFT bits.
PAGE_SHIFT: Final = 12
#: Bytes of a guest frame, of a page table, and of the smallest GPU page.
PAGE_SIZE: Final = 1 << PAGE_SHIFT
#: The highest domain id that a domain can have is one less: DOMID_FIRST_RESERVED, xen/include/public/xen.h.
DOMID_FIRST_RESERVED: Final = 0x7FF0


def parse_domid(text: str) -> int | None:
    """Returns the domain id that ``text`` is in its usual spelling; None for ``007``, ``+7``, other digits and more."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(DOMID_FIRST_RESERVED))):
        return None
    domid = int(text)
    return domid if domid < DOMID_FIRST_RESERVED and str(domid) == text else None
