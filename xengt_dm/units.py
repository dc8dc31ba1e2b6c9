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


def sbdf(bus: int, device: int, function: int, segment: int = 0) -> int:
    """The number of a PCI function, as Xen has it: segment << 16 | bus << 8 | device << 3 | function.

    An ioreq of type PCI_CONFIG has it in ``addr >> 32``. Raises ValueError if no function can have these numbers.
    """
    if not (0 <= segment <= 0xFFFF and 0 <= bus <= 0xFF and 0 <= device <= 31 and 0 <= function <= 7):
        raise ValueError(f"no PCI function {segment:04x}:{bus:02x}:{device:02x}.{function:x}")
    return segment << 16 | bus << 8 | device << 3 | function


def parse_domid(text: str) -> int | None:
    """Returns the domain id that ``text`` is in its usual spelling; None for ``007``, ``+7``, other digits and more."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(DOMID_FIRST_RESERVED))):
        return None
    domid = int(text)
    return domid if domid < DOMID_FIRST_RESERVED and str(domid) == text else None
