"""What a daemon has loaded when it serves. Each module costs every instance instructions and memory that is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sim import SimProcess, environment
from tests.support.zygote import Waiter

#: What a daemon has no use for. With what trio and structlog import of it if they are let, and with the parts of this
#: program for other commands and for recordings.
NEEDLESS = {
    "asyncio",
    "better_exceptions",
    "cffi",
    "colorama",
    "concurrent",
    "curses",
    "difflib",
    "email",
    "gzip",
    "hashlib",
    "hmac",
    "html",
    "http",
    "idna",
    "multiprocessing",
    "prometheus_client",
    "pycparser",
    "rich",
    "shutil",
    "socketserver",
    "ssl",
    "tempfile",
    "tomllib",
    "twisted",
    "unittest",
    "urllib.request",
    "xengt_dm._embedded",
    "xengt_dm.config.example",
    "xengt_dm.config.toml_text",
    "xengt_dm.control.answers",
    "xengt_dm.control.client",
    "xengt_dm.hypervisor.embedded",
    "xengt_dm.service.instances",
    "xengt_dm.sim",
    "xengt_dm.stats.exporter",
    "xengt_dm.stats.reader",
    "xengt_dm.trace.background",
    "xengt_dm.trace.events",
    "xengt_dm.trace.memory",
    "xengt_dm.trace.read",
    "xengt_dm.trace.record",
    "xengt_dm.trace.write",
    "xml",
    "zipfile",
}
#: What newer releases of trio load by ``ctypes.util``, to name their threads.
BY_CTYPES = {"shutil", "tempfile"}
#: Prints the modules whose code has run.
_LIST = "print(*(name for name, module in [*sys.modules.items()] if type(module).__name__ != 'LazyModule'))"
#: The command line in ``sys.argv``, with the list when the daemon says that it serves.
_RUN = f"""
import sys
from xengt_dm.cli import main
from xengt_dm.service import notify
tell = notify.Notifier.ready
def ready(self, status):
    {_LIST}
    sys.stdout.flush()
    tell(self, status)
notify.Notifier.ready = ready
main(prog_name="xengt-dm")
"""


def _loaded(code: str, *words: str) -> set[str]:
    command = [sys.executable, "-c", code, *words]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout.split())


@pytest.fixture(name="loaded", scope="module")
def fixture_loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules of a daemon that serves, without those that this Python has loaded before it does anything."""
    folder = tmp_path_factory.mktemp("start")
    waiter = Waiter()
    try:
        with SimProcess(folder / "sim") as sim:
            words = ["run", "--sim", str(sim.directory), "--domid", str(sim.domid), "--run-dir", str(folder)]
            process = subprocess.Popen(
                [sys.executable, "-c", _RUN, *words],
                stdout=subprocess.PIPE,
                text=True,
                env={**environment(), **waiter.environment},
            )
            assert waiter.ready()
            process.terminate()
            said = process.communicate()[0]
    finally:
        waiter.close()
    return set(said.split()) - _loaded(f"import sys; {_LIST}")


def test_a_daemon_loads_nothing_that_it_does_not_need(loaded: set[str]) -> None:
    needless = NEEDLESS - BY_CTYPES if "ctypes.util" in loaded else NEEDLESS
    heavy = {name for name in loaded for each in needless if name == each or name.startswith(f"{each}.")}
    assert not heavy


def test_the_list_is_of_a_daemon(loaded: set[str]) -> None:
    assert {"trio", "structlog", "click", "xengt_dm._core", "xengt_dm.daemon.main"} <= loaded


def test_the_list_knows_the_names_of_this_program() -> None:
    """A module that moves would drop out of the test without a word."""
    root = Path(__file__).parents[2]
    own = [name for name in NEEDLESS if name.startswith("xengt_dm.") and not name.endswith("._embedded")]
    for name in own:
        path = root.joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), name


_DEFERRING = """
import json, sys
from xengt_dm.lazy_imports import UNUSED, LazyModule, import_lazily, importing
{before}
with importing():
    import_lazily()
    import structlog, trio
kinds = {{name: type(sys.modules[name]).__name__ for name in UNUSED if name in sys.modules}}
{after}
print(json.dumps([kinds, result]))
"""


def _deferring(after: str, before: str = "") -> tuple[dict[str, str], object]:
    code = _DEFERRING.format(before=before, after=after)
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert not done.returncode, done.stderr
    kinds, result = json.loads(done.stdout)
    return kinds, result


@pytest.mark.parametrize(
    ("after", "result"),
    [
        ("import ssl; result = ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED", True),
        ("result = trio._highlevel_ssl_helpers.ssl.create_default_context() is not None", True),
        ("from ssl import CERT_NONE; result = int(CERT_NONE)", 0),
        ("import hmac; result = hmac.new(b'k', b'm', 'sha256').hexdigest()[:8]", "b60090e3"),
        ("import idna; result = idna.encode('b\\u00fccher').decode()", "xn--bcher-kva"),
        ("import asyncio\nasync def f(): return 5\nresult = asyncio.run(f())", 5),
        ("import asyncio.events; result = asyncio.events.AbstractEventLoop is asyncio.AbstractEventLoop", True),
        ("from asyncio import queues; result = queues.Queue is __import__('asyncio').Queue", True),
        ("import importlib, ssl; result = importlib.reload(ssl) is ssl", True),
        ("import ssl; result = [type(ssl).__name__, hasattr(ssl, 'no')]", ["LazyModule", False]),
        ("import logging; result = vars(logging)['logAsyncioTasks']", False),
    ],
)
def test_a_lazy_module_is_what_it_would_be(after: str, result: object) -> None:
    kinds, found = _deferring(after)
    assert set(kinds.values()) == {"LazyModule"}
    assert found == result


def test_a_module_that_runs_already_is_left_alone() -> None:
    kinds, found = _deferring("result = ssl is sys.modules['ssl']", before="import ssl")
    assert kinds.pop("ssl") == "module"
    assert set(kinds.values()) == {"LazyModule"}
    assert found is True


def test_a_lazy_module_runs_once_for_all_threads() -> None:
    after = """
import threading
ran = []
loader = sys.modules["ssl"].__spec__.loader
real = loader.exec_module
def slowly(module):
    ran.append(module)
    started.set()
    real(module)
loader.exec_module = slowly
started, seen = threading.Event(), []
def use():
    seen.append(sys.modules["ssl"].SSLContext)
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
result = [len(ran), len(set(seen))]
"""
    assert _deferring(after)[1] == [1, 1]


def test_what_fails_to_run_can_be_tried_again() -> None:
    after = """
loader = sys.modules["ssl"].__spec__.loader
real = loader.exec_module
def fail(module): raise ImportError("broken")
loader.exec_module = fail
result = []
try: sys.modules["ssl"].SSLContext
except ImportError as error: result.append(str(error))
loader.exec_module = real
result.append(sys.modules["ssl"].SSLContext.__name__)
"""
    assert _deferring(after)[1] == ["broken", "SSLContext"]


def test_what_is_hidden_can_be_imported_afterwards(tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("here = 1\n")
    before = f"sys.path.insert(0, {os.fspath(tmp_path)!r})"
    after = "hidden = 'rich' in sys.modules; import rich; result = [hidden, rich.here]"
    assert _deferring(after, before)[1] == [False, 1]
