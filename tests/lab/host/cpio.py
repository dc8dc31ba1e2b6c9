"""Initial root file systems: the archives that Linux unpacks (cpio's "newc")."""

import os
import stat
from pathlib import Path

_MAGIC = b"070701"
_END = "TRAILER!!!"


def archive(root: Path) -> bytes:
    """All that is in a directory, owned by root. Its entries are directories, files and symbolic links."""
    names = [path.relative_to(root) for path in sorted(root.rglob("*"))]
    entries = [_entry(str(name), number, root / name) for number, name in enumerate(names, 1)]
    return b"".join([*entries, _packed(_END, 0, 0, b"")])


def _entry(name: str, number: int, path: Path) -> bytes:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return _packed(name, number, mode, os.readlink(path).encode())
    return _packed(name, number, mode, path.read_bytes() if stat.S_ISREG(mode) else b"")


def _packed(name: str, number: int, mode: int, data: bytes) -> bytes:
    # inode, mode, uid, gid, links, mtime, size, device and special device, length of the name, checksum
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = _MAGIC + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return _aligned(head) + _aligned(data)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
