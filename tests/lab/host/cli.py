"""The command line: from scenarios' names to one verdict line each, and an exit status."""

import argparse
import json
import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from . import (
    cache,
    dom0_programs,
    emulator,
    guests,
    image,
    linux_guest,
    machine,
    packages,
    plan,
    project,
    qemu,
    result,
    turns,
)
from .errors import LabError
from .machine import Machine
from .plan import Boot
from .progress import Progress
from .release import RELEASES, Release
from .result import Outcome

_LAB = Path(__file__).resolve().parents[1]
_RUN_DISK_SIZE = "256M"
_CONSOLE_LINES = 30
_BOOTS = 3


def main() -> int:
    """Run what the arguments ask for: 0 if all scenarios passed, 1 if not (2 for a wrong command line)."""
    options = _arguments()
    progress = Progress()
    signal.signal(signal.SIGTERM, _interrupt)
    release = RELEASES[options.xen]
    left = list(dict.fromkeys(options.scenario))
    why = "interrupted"
    passed = True
    try:
        for outcome in _run(options, release, progress):
            left.remove(outcome.scenario)
            passed = _verdict(outcome, release, options.json) and passed
    except LabError as error:
        why, *details = str(error).splitlines()
        for line in details:
            print(line, flush=True)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        traceback.print_exc()
        why = f"in the lab itself: {type(error).__name__}: {error}"
    for name in left:
        passed = _verdict(Outcome(name, why, {}), release, options.json)
    return 0 if passed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/lab/run", description="Run scenarios on a real Xen under QEMU.")
    parser.add_argument("scenario", choices=plan.names(), nargs="+")
    parser.add_argument("--xen", choices=sorted(RELEASES), required=True, help="the hypervisor's version")
    parser.add_argument("--full", action="store_true", help="the full size, not that of the tests that run every time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add verdict and figures there, a line a scenario")
    parser.add_argument(
        "--patch", type=Path, metavar="FILE", help="break the project with it first, to see a scenario fail"
    )
    parser.add_argument(
        "--hypervisor", type=Path, metavar="FILE", help="boot this build of the same Xen version in place of Debian's"
    )
    parser.add_argument("--keep", action="store_true", help="keep the run's disks and console log even if it passes")
    return parser.parse_args()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _verdict(outcome: Outcome, release: Release, report: Path | None) -> bool:
    """Print the line of a scenario; whether it passed."""
    passed = outcome.why is None
    if report:
        words = {"scenario": outcome.scenario, "xen": release.xen, "pass": passed, "why": outcome.why}
        with report.open("a") as lines:
            lines.write(json.dumps({**words, "figures": outcome.figures}) + "\n")
    title = f"{outcome.scenario} ({release.xen})"
    figures = " ".join(f"{name}={value}" for name, value in outcome.figures.items())
    print(f"PASS {title} {figures}" if passed else f"FAIL {title} {outcome.why}", flush=True)
    return passed


def _run(options: argparse.Namespace, release: Release, progress: Progress) -> Iterator[Outcome]:
    """The outcomes, each as soon as it is known. Raises LabError if the rest cannot be tried."""
    if os.geteuid() != 0:
        raise LabError("root is needed: the images are made with mmdebstrap and chroot")
    packages.require(progress)
    emulator_words = qemu.command(progress)
    base = image.dom0(release, progress)
    if options.hypervisor:
        base = image.with_hypervisor(base, options.hypervisor)
    tree = image.build_tree(release, progress)
    with progress.phase("building the project"):
        package = project.build(tree, options.patch)
    runs = cache.directory() / "runs"
    runs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"root-{release.xen}-", dir=runs) as scratch:
        root = Path(scratch) / "root.img"
        image.installed_disk(base, package, root, progress)
        for boot in plan.boots(options.scenario, options.full):
            work = Path(tempfile.mkdtemp(prefix=f"{'-'.join(boot.scenarios)}-{release.xen}-", dir=runs))
            passed = True
            try:
                content = _content(boot, base, package, tree, work, options, progress)
                emulated = Machine(emulator_words, boot.machine)
                for outcome in _boot(boot, emulated, base, root, content, work, progress):
                    passed = passed and outcome.why is None
                    yield outcome
            except BaseException:
                passed = False
                raise
            finally:
                _leave(work, options.keep, passed)


def _boot(
    boot: Boot,
    emulated: Machine,
    base: image.Dom0Image,
    root: Path,
    content: Path,
    work: Path,
    progress: Progress,
) -> Iterator[Outcome]:
    """Boot until each scenario has ended on a machine that worked.

    What comes after one that did not pass is run on a machine of its own, so that it does not find what that one left.
    """
    left = list(boot.scenarios)
    tries = 0
    while left:
        tries += 1
        console = work / f"console-{len(boot.scenarios) - len(left)}-{tries}.log"
        disks = _disks(boot.only(left), root, content, work)
        trouble = "dom0 ended without a result"
        try:
            with turns.processors(emulated.busy, progress):
                progress.say(f"booting Xen for {', '.join(left)}")
                used = machine.run(emulated, base, disks, console, progress)
            progress.say(f"the machine is off, it took {used:.0f} s of processor time")
        except LabError as error:
            trouble = str(error)
        except KeyboardInterrupt:
            yield from (outcome for outcome in result.read(disks.result) if outcome.why is None)
            raise
        for outcome in result.read(disks.result):
            if outcome.why is not None:
                trouble = outcome.why
                break
            left.remove(outcome.scenario)
            yield Outcome(outcome.scenario, None, {**outcome.figures, "boots": tries})
            tries = 1
        else:
            if not left:
                return
        if tries < _BOOTS and emulator.mixed_up_a_guest(console):
            progress.say("the emulator put the host's registers into a guest: this boot says nothing, booting again")
            continue
        yield Outcome(left.pop(0), trouble, {})
        tries = 0


def _content(
    boot: Boot,
    base: image.Dom0Image,
    package: Path,
    tree: Path,
    work: Path,
    options: argparse.Namespace,
    progress: Progress,
) -> Path:
    """Put the package, all programs and the scenarios into the folder that becomes dom0's /lab."""
    content = work / "lab"
    for part in ("dom0", "scenarios"):
        shutil.copytree(_LAB / part, content / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in boot.folders:
        shutil.copytree(_LAB.parent / part, content / part, ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    with progress.phase("compiling the programs"):
        guests.compile_all(boot.guests, content / "guests")
        dom0_programs.compile_all(boot.programs, tree, content / "bin")
    for driver in boot.drivers:
        linux_guest.build(base, driver, content / "guests" / driver, progress)
    shutil.copy(package, content)
    if options.full:
        (content / "full").touch()
    return content


def _disks(boot: Boot, root: Path, content: Path, work: Path) -> machine.Disks:
    """The disks of a boot: what it runs is written on the first."""
    (content / "scenario").write_text("\n".join(boot.scenarios))
    (content / "systemd").unlink(missing_ok=True)
    if boot.systemd:
        (content / "systemd").touch()
    disks = machine.Disks(root, work / "lab.img", work / "result.img")
    disks.lab.unlink(missing_ok=True)
    image.make_disk(content, disks.lab, _RUN_DISK_SIZE)
    result.create(disks.result)
    return disks


def _leave(work: Path, keep: bool, passed: bool) -> None:
    """Remove what nobody will look at: everything after a pass, all but the console logs after a failure."""
    consoles = sorted(work.glob("console-*.log"), key=lambda path: path.stat().st_mtime)
    if keep:
        print(f"kept: {work}", flush=True)
        return
    if passed or not consoles:
        shutil.rmtree(work)
        return
    for item in work.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        elif item not in consoles:
            item.unlink()
    last = consoles[-1].read_text("utf-8", "replace").splitlines()[-_CONSOLE_LINES:]
    print("\n".join(["the console's last lines:", *last, f"the whole console logs: {work}"]), flush=True)
