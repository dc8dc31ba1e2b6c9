"""The command line: from a scenario's name to one verdict line and an exit status."""

import argparse
import importlib
import json
import os
import shutil
import signal
import tempfile
import traceback
from pathlib import Path
from types import FrameType, ModuleType

from . import cache, emulator, guests, image, machine, packages, project, result
from .errors import LabError
from .progress import Progress
from .release import RELEASES, Release

_LAB = Path(__file__).resolve().parents[1]
_RUN_DISK_SIZE = "64M"
_CONSOLE_LINES = 30
_BOOTS = 3
_CPUS = 2


def main() -> int:
    """Run what the arguments ask for: 0 if the scenario passed, 1 if not (2 for a wrong command line)."""
    options = _arguments()
    progress = Progress()
    signal.signal(signal.SIGTERM, _interrupt)
    release = RELEASES[options.xen]
    title = f"{options.scenario} ({release.xen})"
    figures: dict[str, int | float | str] = {}
    why: str | None = "interrupted"
    try:
        figures = _run(options, release, progress)
        why = None
    except LabError as error:
        reason, *details = str(error).splitlines()
        for line in details:
            print(line, flush=True)
        why = reason
    except KeyboardInterrupt:
        pass
    except Exception as error:
        traceback.print_exc()
        why = f"in the lab itself: {type(error).__name__}: {error}"
    figures["seconds"] = round(progress.seconds(), 1)
    if options.json:
        report = {"scenario": options.scenario, "xen": release.xen, "pass": why is None, "why": why, "figures": figures}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if why is None:
        print(f"PASS {title} " + " ".join(f"{name}={value}" for name, value in figures.items()))
        return 0
    print(f"FAIL {title} {why}")
    return 1


def _arguments() -> argparse.Namespace:
    names = sorted(path.stem for path in (_LAB / "scenarios").glob("[a-z]*.py"))
    parser = argparse.ArgumentParser(prog="tests/lab/run", description="Run a scenario on a real Xen under QEMU.")
    parser.add_argument("scenario", choices=names)
    parser.add_argument("--xen", choices=sorted(RELEASES), required=True, help="the hypervisor's version")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write verdict and figures there")
    parser.add_argument(
        "--patch", type=Path, metavar="FILE", help="break the project with it first, to see a scenario fail"
    )
    parser.add_argument("--keep", action="store_true", help="keep the run's disks and console log even if it passes")
    return parser.parse_args()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(options: argparse.Namespace, release: Release, progress: Progress) -> dict[str, int | float | str]:
    name: str = options.scenario
    if os.geteuid() != 0:
        raise LabError("root is needed: the images are made with mmdebstrap and chroot")
    scenario = importlib.import_module(f"scenarios.{name}")
    packages.require(release, progress)
    base = image.dom0(release, getattr(scenario, "PACKAGES", ()), progress)
    tree = image.build_tree(release, progress)
    runs = cache.directory() / "runs"
    runs.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{name}-{release.xen}-", dir=runs))
    console = work / "console.log"
    passed = False
    try:
        disks = _run_disks(name, scenario, tree, work, options.patch, progress)
        figures = _boot(base, disks, getattr(scenario, "CPUS", _CPUS), console, scenario.SECONDS, progress)
        passed = True
        return figures
    finally:
        _leave(work, console, options.keep, passed)


def _boot(
    base: image.Dom0Image, disks: machine.Disks, cpus: int, console: Path, limit: float, progress: Progress
) -> dict[str, int | float | str]:
    """Boot until the scenario has ended on a machine that worked; its figures. Raises LabError if it failed."""
    for boot in range(1, _BOOTS + 1):
        progress.say("booting Xen")
        result.create(disks.result)
        try:
            machine.run(base, disks, cpus, console, limit, progress)
            outcome = result.read(disks.result)
            if outcome.why is not None:
                raise LabError(outcome.why)
            return {**outcome.figures, "boots": boot}
        except LabError:
            if boot == _BOOTS or not emulator.mixed_up_a_guest(console):
                raise
            progress.say("the emulator put the host's registers into a guest: this boot says nothing, booting again")
    raise AssertionError("unreachable")


def _run_disks(
    name: str, scenario: ModuleType, tree: Path, work: Path, patch: Path | None, progress: Progress
) -> machine.Disks:
    """Put the project, the guest programs and the scenario on the disk that dom0 mounts as /lab."""
    content = work / "lab"
    for part in ("dom0", "scenarios"):
        shutil.copytree(_LAB / part, content / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in getattr(scenario, "FOLDERS", ()):
        shutil.copytree(_LAB.parent / part, content / part, ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    with progress.phase("compiling the guest programs"):
        guests.compile_all(scenario.GUESTS, content / "guests")
    with progress.phase("building the project"):
        shutil.copy(project.build(tree, patch), content)
    (content / "scenario").write_text(name)
    disks = machine.Disks(work / "lab.img", work / "result.img")
    image.make_disk(content, disks.lab, _RUN_DISK_SIZE)
    return disks


def _leave(work: Path, console: Path, keep: bool, passed: bool) -> None:
    """Remove what nobody will look at: everything after a pass, all but the console log after a failure."""
    if keep:
        print(f"kept: {work}", flush=True)
        return
    if passed or not console.exists():
        shutil.rmtree(work)
        return
    for item in work.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        elif item != console:
            item.unlink()
    last = console.read_text("utf-8", "replace").splitlines()[-_CONSOLE_LINES:]
    print("\n".join(["the console's last lines:", *last, f"the whole console log: {console}"]), flush=True)
