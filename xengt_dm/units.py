"""The type of what cffi hands out."""

from typing import Any, TypeAlias

#: A C pointer, array or structure owned by cffi; its C type is named where it is used.
CData: TypeAlias = Any
