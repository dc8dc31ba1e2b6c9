"""What an xl domain configuration says that concerns us: the domain's name, ``xengt`` and the historic ``vgt_...``.

xl ignores keys that it does not know, so its file may contain ours. :mod:`.xl_parser` parses the file exactly as xl
does; a file that xl would refuse is refused here, before anything is created.

    name = "win"
    xengt = [ "shadow.mode=relaxed", "device.generation=9" ]   each as for `xengt-dm run --set`
    xengt = 0                                                  no GPU for this domain
    vgt_low_gm_sz = 64                                         as XenGT's own xl had them, 2014 to 2018

xl's own key ``hap`` concerns us as well: a domain without HAP can have no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xengt_dm.config.files import Assignment, assign
from xengt_dm.errors import ConfigError
from xengt_dm.service.xl_parser import Atom, List, Setting, as_number, parse_config

NAME: Final = "name"
OPTIONS: Final = "xengt"
#: Keys of XenGT's xl that are aliases of configuration keys of ours.
HISTORIC: Final = ("vgt_low_gm_sz", "vgt_high_gm_sz", "vgt_fence_sz")
#: The key by which XenGT's xl said whether the domain has a GPU at all.
HISTORIC_SWITCH: Final = "vgt"
#: xl's word for hardware-assisted paging. xl passes over a value that is no number (xlu_cfg_get_defbool).
HAP: Final = "hap"

#: A file of xl is a page or two.
SIZE_LIMIT: Final = 1 << 20


@dataclass(frozen=True)
class Domain:
    """What a file says about a domain. ``wanted`` is False if the file says that the domain gets no GPU."""

    name: str
    wanted: bool
    options: list[Assignment]


def read(path: Path) -> Domain:
    """Reads a file.

    Raises ConfigError, with file and line, if it cannot be read or is wrong, or if the domain can have no GPU as it is.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > SIZE_LIMIT:
        raise ConfigError(f"{path}: more than {SIZE_LIMIT} bytes; is it the right file?")
    return interpret(data, str(path))


def interpret(content: bytes | str, file: str) -> Domain:
    """Interprets the content of a file, as :func:`read` does; ``file`` is for messages."""
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    settings = parse_config(data, file)
    wanted = True
    options: list[Assignment] = []
    without_hap = ""
    for setting in settings.values():
        origin = f"{file}:{setting.value.line}"
        if setting.name == OPTIONS and as_number(setting) is None:
            options += _options(setting, file)
        elif setting.name in (OPTIONS, HISTORIC_SWITCH):
            wanted = _number(setting, origin) != 0
        elif setting.name in HISTORIC:
            options.append(assign(setting.name, str(_number(setting, origin)), origin))
        elif setting.name == HAP and as_number(setting) == 0:
            without_hap = origin
    if wanted and without_hap:
        raise ConfigError(
            f"{without_hap}: {HAP} = 0: the domain would run on shadow paging, and write trapping needs HAP. Write "
            f"{HAP}=1, or remove the line; or write {OPTIONS} = 0 if the domain is to have no GPU"
        )
    return Domain(_name(settings.get(NAME), file), wanted, options)


def _name(setting: Setting | None, file: str) -> str:
    if setting is None or not isinstance(setting.value, Atom) or not setting.value.text:
        raise ConfigError(f'{file}: no name: a line `name = "..."` tells xl and us which domain it is')
    return setting.value.text


def _number(setting: Setting, origin: str) -> int:
    number = as_number(setting)
    if number is None:
        why = "+= makes no number" if setting.added else f"{_shown(setting.value)} is not a number"
        raise ConfigError(f"{origin}: {setting.name}: {why}")
    return number


def _options(setting: Setting, file: str) -> Iterator[Assignment]:
    for each in setting.value.items if isinstance(setting.value, List) else [setting.value]:
        origin = f"{file}:{each.line}"
        key, sign, value = each.text.partition("=") if isinstance(each, Atom) else ("", "", "")
        if not sign:
            raise ConfigError(f'{origin}: {OPTIONS}: {_shown(each)} is no "KEY=VALUE"; like "shadow.mode=relaxed"')
        yield assign(key.strip(), value.strip(), origin)


def _shown(value: Atom | List) -> str:
    return repr(value.text[:60]) if isinstance(value, Atom) else "a list"
