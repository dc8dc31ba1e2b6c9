"""The host watcher: which instances it starts and stops as domains come, go, reboot and change their names."""

from __future__ import annotations

from errno import E2BIG, EACCES, EAGAIN, EINVAL
from types import SimpleNamespace

import pytest
import trio

from tests.support.watched import WatchedHost, until
from xengt_dm.config.files import assign
from xengt_dm.errors import HostError
from xengt_dm.service import instances
from xengt_dm.service import watch as module
from xengt_dm.service.watch import watch


def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The watcher's errors from now on."""

    def ignored(event: str, **fields: object) -> None: ...

    said: list[str] = []
    logger = SimpleNamespace(error=lambda event, **fields: said.append(f"{event} {fields['reason']}"), info=ignored)
    monkeypatch.setattr(module, "get_logger", lambda: logger)
    return said


def test_domains_with_a_file_are_served(watched: WatchedHost) -> None:
    watched.configure("win")
    watched.names |= {3: "win", 4: "other"}
    assert watched.look() == ["start 3"]
    assert watched.look() == []
    watched.names |= {5: "win"}
    assert watched.look() == ["start 5"]


def test_an_instance_that_an_operator_stopped_stays_stopped(watched: WatchedHost) -> None:
    watched.configure("win")
    watched.names |= {3: "win"}
    watched.look()
    watched.serving.clear()
    assert watched.look() == []


def test_instances_of_domains_that_are_gone_are_stopped(watched: WatchedHost) -> None:
    watched.names |= {3: "win", 4: "other"}
    watched.serving = {3, 4}
    assert watched.look() == []
    del watched.names[4]
    assert watched.look() == ["stop 4"]
    assert watched.forgotten == [4]
    watched.serving = {9}  # of a domain that went while nobody watched
    assert watched.look() == ["stop 9"]


def test_what_is_left_of_domains_that_went_while_nobody_watched_is_removed_once(watched: WatchedHost) -> None:
    """The launch of one, the run directory of another; what is being removed is not removed again."""
    instances.remember(5, [assign("shadow.mode", "relaxed", "x")], watched.launch)
    (watched.launch / "not-a-domain").touch()
    watched.serving = {6}
    steps = watched.watcher.steps()
    assert watched.watcher.steps() == []
    for step in steps:
        step.do()
    assert (watched.said, watched.forgotten) == (["stop 6"], [5, 6])
    instances.forget(5, watched.launch)
    assert watched.look() == []


def test_a_domain_without_a_name_yet_is_looked_at_again(watched: WatchedHost) -> None:
    watched.configure("win")
    watched.names[3] = None
    assert watched.look() == []
    watched.names[3] = "win"
    assert watched.look() == ["start 3"]


def test_names_that_no_file_can_have(watched: WatchedHost) -> None:
    watched.names |= {3: "../win", 4: "", 5: ".hidden"}
    assert watched.look() == []


def test_a_directory_that_cannot_be_read_is_told_once(watched: WatchedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each look, which is every few seconds."""
    said = events(monkeypatch)
    domains = watched.config / "domains"
    domains.rmdir()
    for times in (1, 2):
        domains.write_text("a file\n")
        assert [watched.look(), watched.look()] == [[], []]
        assert said == [f"watch.unreadable {domains}: cannot be read: Not a directory"] * times
        domains.unlink()
        assert watched.look() == []


def test_one_failure_does_not_keep_others_from_being_served(watched: WatchedHost) -> None:
    for domid in (3, 4, 5):
        watched.configure(f"d{domid}")
        watched.names[domid] = f"d{domid}"
    watched.broken = {3}
    assert watched.look() == ["start 3", "start 4", "start 5"]
    assert watched.serving == {4, 5}


# names that change, files that come later


def test_a_domain_that_is_migrated_in_is_served_from_the_start(watched: WatchedHost) -> None:
    watched.configure("win")
    watched.names[7] = "win--incoming"
    assert watched.look() == ["start 7"]
    watched.names[7] = "win"
    assert watched.look() == []


def test_a_renamed_domain_is_served(watched: WatchedHost) -> None:
    watched.configure("win")
    watched.names[7] = "other"
    assert watched.look() == []
    watched.names[7] = "win"
    assert watched.look() == ["start 7"]


def test_a_file_that_is_added_later_counts(watched: WatchedHost) -> None:
    watched.names |= {7: "win", 8: "other"}
    assert watched.look() == []
    watched.configure("win")
    assert watched.look() == ["start 7"]


def test_a_rename_and_a_file_are_noticed_without_an_event(
    watched: WatchedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    watched.names |= {7: "other", 8: "late"}

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, watched, watched.watcher)
            await until(lambda: "/local/domain/7/vm" in watched.reads)
            watched.configure("win")
            watched.names[7] = "win"
            await until(lambda: watched.said == ["start 7"])
            watched.configure("late")
            await until(lambda: watched.said == ["start 7", "start 8"])
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_without_an_event_only_domains_without_an_instance_are_asked_about(watched: WatchedHost) -> None:
    watched.configure("win")
    watched.names |= {3: "win", 4: "other"}
    watched.uuids |= {3: UUID, 4: OTHER}
    watched.look()
    watched.reads.clear()
    assert watched.watcher.steps(after_event=False) == []
    assert watched.reads == ["/local/domain/4/name"]


@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 4000, "a\nb", "\udcff", "\ud800x", "-h", "../x", ".x", "%n", "", "\x1b[2J", "a\0b"]
)
def test_a_name_that_no_file_can_have_keeps_no_other_from_being_served(watched: WatchedHost, name: str) -> None:
    watched.configure("good")
    watched.names |= {3: name, 5: "good"}
    assert watched.look() == ["start 5"]
    del watched.names[3]
    assert watched.look() == []


def test_a_domain_that_cannot_be_asked_about_keeps_no_other_from_being_served(watched: WatchedHost) -> None:
    watched.configure("good")
    watched.names |= {3: "good", 5: "good"}
    read = watched.read

    def refuse(path: str) -> str:
        if path.startswith("/local/domain/3/"):
            raise HostError("xenstore read", None, EACCES)
        return read(path)

    watched.read = refuse  # type: ignore[method-assign]
    assert watched.look() == ["start 5"]
    watched.read = read  # type: ignore[method-assign]
    assert watched.look() == ["start 3"]


def test_more_domains_than_a_directory_holds(watched: WatchedHost) -> None:
    watched.configure("guest-10005")
    watched.names |= {domid: f"guest-{domid}" for domid in range(10_000, 10_700)}
    assert watched.look() == ["start 10005"]


# what cannot be read, and what is tried again


@pytest.mark.parametrize("number", [E2BIG, EACCES, EAGAIN, EINVAL])
def test_a_list_of_domains_that_is_refused_is_told_once(
    watched: WatchedHost, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As a xenstored without DIRECTORY_PART refuses a long list: the watcher goes on, and does not connect again."""
    said = events(monkeypatch)
    watched.configure("win")
    watched.names[3] = "win"
    watched.fails += [HostError("xenstore directory", None, number)] * 2
    assert [watched.look(), watched.look()] == [[], []]
    assert said == [f"watch.unreadable {HostError('xenstore directory', None, number)}"]
    assert watched.look() == ["start 3"]


@pytest.mark.parametrize("what", ["launches", "run directories"])
def test_a_directory_of_records_that_cannot_be_read_does_not_end_the_watcher(
    watched: WatchedHost, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Domains are served all the same."""
    said = events(monkeypatch)
    watched.configure("win")
    watched.names[3] = "win"
    if what == "launches":
        watched.launch.write_text("a file\n")
    else:
        watched.unlistable = True
    assert watched.look() == ["start 3"]
    assert watched.look() == []
    assert len(said) == 1
    assert "Not a directory" in said[0]


def test_a_start_that_failed_is_tried_again_when_the_files_change(watched: WatchedHost) -> None:
    """Whichever file was wrong; not if nothing changed, nor once the instance was started."""
    watched.configure("win")
    watched.names[3] = "win"
    watched.broken = {3}
    assert watched.look() == ["start 3"]
    assert watched.look() == []
    (watched.config / "domains" / "win.toml").write_text("# mended\n")
    assert watched.look() == ["start 3"]
    assert watched.look() == []
    (watched.config / "xengt-dm.toml").write_text("# mended, too\n")
    watched.broken.clear()
    assert watched.look() == ["start 3"]
    watched.serving.clear()  # an operator stopped it
    (watched.config / "domains" / "win.toml").unlink()
    assert watched.look() == []


def test_names_that_are_exchanged(watched: WatchedHost) -> None:
    """xl rename three times: the domain that has the name now is served."""
    watched.configure("win")
    watched.names |= {3: "win", 4: "other"}
    assert watched.look() == ["start 3"]
    watched.names |= {3: "other", 4: "win"}
    assert watched.look() == ["start 4"]


# reboots, and ids that come again

UUID = "0f8a3c1e-0000-4000-8000-00000000000a"
OTHER = "0f8a3c1e-0000-4000-8000-00000000000b"


def launch(watched: WatchedHost, domid: int, uuid: str) -> None:
    """As `create` does it."""
    watched.names[domid], watched.uuids[domid] = "guest", uuid
    instances.remember(domid, [assign("shadow.mode", "relaxed", "x")], watched.launch, uuid)


def test_a_guest_that_reboots_has_its_instance_with_its_options_again(watched: WatchedHost) -> None:
    launch(watched, 7, UUID)
    assert watched.look() == []
    # @releaseDomain when it shuts down; then xl destroys it, and builds it anew
    del watched.names[7]
    instances.forget(7, watched.launch)
    assert watched.look() == []
    watched.names[8], watched.uuids[8] = "guest", UUID
    assert watched.look() == ["start 8"]
    assert instances.launch_of(8, watched.launch) == (["--set", "shadow.mode=relaxed"], UUID)
    del watched.names[8]
    watched.look()
    watched.names[9], watched.uuids[9] = "guest", UUID
    assert watched.look() == ["start 9"]


def test_a_guest_that_reboots_before_it_is_looked_at_again(watched: WatchedHost) -> None:
    """xl introduces the domain, `create` records its options, and xl destroys it, all between two looks."""
    watched.names[7], watched.uuids[7] = "guest", UUID
    assert watched.look() == []
    launch(watched, 7, UUID)
    del watched.names[7]
    watched.look()
    watched.names[8], watched.uuids[8] = "guest", UUID
    assert watched.look() == ["start 8"]
    assert instances.launch_of(8, watched.launch) == (["--set", "shadow.mode=relaxed"], UUID)


def test_another_domain_has_not(watched: WatchedHost) -> None:
    launch(watched, 7, UUID)
    watched.look()
    del watched.names[7]
    watched.look()
    watched.names[8], watched.uuids[8] = "guest", OTHER
    assert watched.look() == []


def test_a_reboot_is_not_waited_for_for_ever(watched: WatchedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(watched, 7, UUID)
    watched.look()
    del watched.names[7]
    watched.look()
    monkeypatch.setattr(module, "REBOOT_SECONDS", 0.0)
    watched.names[8], watched.uuids[8] = "guest", UUID
    assert watched.look() == []


def test_a_domain_id_that_comes_again_between_two_looks(watched: WatchedHost) -> None:
    watched.configure("guest")
    launch(watched, 7, UUID)
    assert watched.look() == ["start 7"]
    watched.names[7], watched.uuids[7] = "guest", OTHER
    assert watched.look() == ["start 7"]
    assert instances.launch_of(7, watched.launch) is None, "these options were for another domain"
    assert watched.forgotten == [], "what is in its run directory may be the new one's"


def test_restart_of_a_guest_whose_old_domain_is_kept(watched: WatchedHost) -> None:
    """on_crash = "rename-restart": xl gives the crashed domain another name and uuid, and builds a new one."""
    launch(watched, 7, UUID)
    watched.look()
    watched.names[7], watched.uuids[7] = "guest-1", OTHER
    watched.names[8], watched.uuids[8] = "guest", UUID
    assert watched.look() == ["start 8"]


def test_a_guest_that_rebooted_while_nobody_watched(watched: WatchedHost) -> None:
    """As at an upgrade of the package, which restarts the watcher. The record of the first launch is still there."""
    launch(watched, 7, UUID)
    del watched.names[7]
    watched.names[8], watched.uuids[8] = "guest", UUID
    watched.names[9], watched.uuids[9] = "another", OTHER
    assert watched.look() == ["start 8"]
    assert instances.launch_of(8, watched.launch) == (["--set", "shadow.mode=relaxed"], UUID)
    assert watched.forgotten == [7]


def test_a_guest_that_reboots_several_times_between_two_looks(watched: WatchedHost) -> None:
    launch(watched, 7, UUID)
    watched.look()
    del watched.names[7]
    watched.names[11], watched.uuids[11] = "guest", UUID
    assert watched.look() == ["start 11"]
