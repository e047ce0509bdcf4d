"""`unitmem.manager.tracker` with the real bus client: units that come, go and are restarted, at awkward times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import pytest
from cgroup_tree import CgroupTree
from fake_systemd1 import FakeSystemd1

from unitmem.daemon.sampling import Sampling
from unitmem.errors import BusLostError
from unitmem.kernel.cgroup import CgroupGoneError
from unitmem.kernel.host import Host
from unitmem.manager.systemd import Manager
from unitmem.manager.tracker import Tracker
from unitmem.policy.state import State
from unitmem.unit import Unit, matches

SLICE = "/system.slice"


@pytest.fixture
def following(manager: Manager) -> Manager:
    manager.follow()
    return manager


@pytest.fixture
def tracker(cgroups: CgroupTree) -> Iterator[Tracker]:
    """Governs web*; unitmem itself runs in /system.slice/unitmem.service."""
    tracker = Tracker(lambda name: matches(name, ["web*"]), SLICE + "/unitmem.service", cgroups.root)
    yield tracker
    tracker.close()


def run(systemd: FakeSystemd1, cgroups: CgroupTree, name: str, **values: object) -> str:
    """Have the unit run, with a cgroup; the cgroup's path."""
    path = f"{SLICE}/{name}"
    systemd.add(name, control_group=path, directory=cgroups.make(path), **values)
    return path


def update(tracker: Tracker, manager: Manager) -> list[str]:
    """Let it learn all that has happened so far; the names of the units that have a cgroup then."""
    manager.list_units()  # an answered call is proof that signals sent before have arrived
    tracker.update(manager)
    return [tracked.unit.name for tracked, _ in tracker.present()]


# --- which units ---


def test_units_that_end_while_others_are_described_are_not_asked_for(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """Each call that fails leaks a kilobyte in pystemd: 20 MiB in minutes of hundreds of starts a second."""
    names = [f"web{number}.service" for number in range(5)]
    for name in names:
        run(systemd, cgroups, name)
    systemd.interlude("GetUnit", *({"do": "remove", "name": name, "announce": True} for name in names))
    assert update(tracker, following) == []
    assert len(systemd.calls("GetUnit")) == 1


def test_each_attempt_with_a_manager_that_answers_now_and_then_comes_further(
    systemd: FakeSystemd1,
    cgroups: CgroupTree,
    following: Manager,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
):
    """It answers for two units at a time, and everything has to be listed anew after each loss."""
    names = [f"web{number}.service" for number in range(6)]
    for name in names:
        run(systemd, cgroups, name)
    describe, answers = following.describe, iter([True, True, False] * 3)

    def now_and_then(name: str) -> Unit:
        if not next(answers, True):
            raise BusLostError("it hangs")
        return describe(name)

    monkeypatch.setattr(following, "describe", now_and_then)
    for _ in range(3):
        with suppress(BusLostError):
            tracker.update(following)
        tracker.resume()
    assert [tracked.unit.name for tracked, _ in tracker.present()] == names


def test_units_that_are_there_at_the_start(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """Only governed units that have a cgroup, by name, each with the cgroup that is theirs."""
    run(systemd, cgroups, "web2.service")
    run(systemd, cgroups, "web1.service")
    run(systemd, cgroups, "db.service")
    systemd.add("web3.service", active_state="inactive")
    systemd.add("web.timer")
    assert update(tracker, following) == ["web1.service", "web2.service"]
    assert [cgroup.path for _, cgroup in tracker.present()] == [f"{SLICE}/web{n}.service" for n in (1, 2)]
    asked = {body[0] for _, body in systemd.calls("GetUnit")}
    assert asked == {"web1.service", "web2.service", "web3.service"}


def test_a_quiet_tick_asks_nothing(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """Listing costs the manager dearly: where nothing has happened, it isn't asked at all."""
    run(systemd, cgroups, "web.service")
    update(tracker, following)
    before = len(systemd.calls())
    for _ in range(5):
        tracker.update(following)
    assert len(systemd.calls()) == before


def test_a_unit_that_nobody_governs_is_not_asked_about(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """What other units do costs nothing."""
    update(tracker, following)
    before = len(systemd.calls("Id"))
    run(systemd, cgroups, "db.service")
    update(tracker, following)
    assert len(systemd.calls("Id")) == before


def test_units_that_come(systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker):
    """A unit that appears is tracked from the next update on, without another listing."""
    assert update(tracker, following) == []
    run(systemd, cgroups, "web.service")
    lists = len(systemd.calls("ListUnits"))
    assert update(tracker, following) == ["web.service"]
    assert len(systemd.calls("ListUnits")) == lists + 1, "the one of `update` here"


@pytest.mark.parametrize("announced", [True, False])
def test_units_that_go(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker, announced: bool
):
    """A unit that ends is let go, whether a signal tells so or only its cgroup, which is gone."""
    path = run(systemd, cgroups, "web.service")
    update(tracker, following)
    ((_, cgroup),) = tracker.present()
    cgroups.remove(path)
    systemd.remove("web.service", announce=announced)
    with pytest.raises(CgroupGoneError):
        cgroup.read_file("memory.current")
    tracker.mark_gone("web.service")
    assert tracker.present() == []
    assert update(tracker, following) == []
    assert tracker.find("web.service") is None


def test_a_unit_that_goes_and_comes_between_updates(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """The order of signals counts: gone and back is there."""
    path = run(systemd, cgroups, "web.service")
    update(tracker, following)
    old = tracker.present()[0][1].inode
    systemd.remove("web.service")
    cgroups.remake(path)
    systemd.add("web.service", control_group=path)
    assert update(tracker, following) == ["web.service"]
    assert tracker.present()[0][1].inode != old
    systemd.add("web2.service")
    systemd.remove("web2.service")
    assert update(tracker, following) == ["web.service"]


def test_an_alias_is_not_a_second_unit(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """A signal about an alias doesn't make the unit count twice."""
    run(systemd, cgroups, "web.service", aliases=("web-alias.service",))
    update(tracker, following)
    systemd.job("JobRemoved", "web-alias.service")
    assert update(tracker, following) == ["web.service"]
    assert tracker.find("web-alias.service") is None


def test_other_units_governed(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """After a reload of policies other units are present, and those that were stay the same ones."""
    for name in ("web.service", "db.service"):
        run(systemd, cgroups, name)
    update(tracker, following)
    tracker.govern(lambda name: name == "db.service")
    assert update(tracker, following) == ["db.service"]
    tracker.govern(lambda name: True)
    assert update(tracker, following) == ["db.service", "web.service"]


def test_core_units_are_known_but_not_governed(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """They matter for what is protected; they're present only while a policy governs them."""
    run(systemd, cgroups, "ssh.service")
    assert update(tracker, following) == []
    assert tracker.find("ssh.service").cgroup is None, "no need to hold it open"
    tracker.govern(lambda _: True)
    assert update(tracker, following) == ["ssh.service"]
    tracker.govern(lambda _: False)
    assert update(tracker, following) == []


# --- restarts ---


def test_a_restart(systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker):
    """After a restart both the invocation and the cgroup are the new ones, though the path is the same."""
    path = run(systemd, cgroups, "web.service")
    update(tracker, following)
    tracked, old = tracker.present()[0]
    first = tracked.unit.invocation_id
    old_inode = old.inode
    cgroups.remake(path)
    second = systemd.restart("web.service")
    update(tracker, following)
    ((tracked, cgroup),) = tracker.present()
    assert tracked.unit.invocation_id == second != first
    assert cgroup.inode != old_inode


def test_a_cgroup_that_is_left_to_the_next_run_is_older_than_that(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    path = run(systemd, cgroups, "web.service")
    update(tracker, following)
    ((tracked, _),) = tracker.present()
    made = tracked.cgroup_made
    assert made is not None
    sleep(0.02)  # the filesystem's clock is coarse
    between = monotonic()
    assert made < between
    systemd.restart("web.service")
    update(tracker, following)
    ((tracked, _),) = tracker.present()
    assert tracked.cgroup_made == made
    sleep(0.02)
    cgroups.remake(path)
    systemd.restart("web.service")
    update(tracker, following)
    ((tracked, _),) = tracker.present()
    assert tracked.cgroup_made is not None
    assert tracked.cgroup_made > between


def test_a_tick_knows_when_a_cgroup_was_made(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    run(systemd, cgroups, "web.service")
    update(tracker, following)
    ((tracked, _),) = tracker.present()
    sample = Sampling().take(tracker, Host(2**33, 2**32, 0, 0), (), State(), monotonic(), lambda: None)
    assert sample.units["web.service"].cgroup_made == tracked.cgroup_made


def test_the_cgroup_of_a_run_that_goes_on_stays_open(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """A job that restarts nothing (a reload of the unit) leaves the same open cgroup."""
    run(systemd, cgroups, "web.service")
    update(tracker, following)
    before = tracker.present()[0][1]
    systemd.job("JobNew", "web.service")
    systemd.job("JobRemoved", "web.service")
    update(tracker, following)
    assert tracker.present()[0][1] is before


def test_a_restart_between_listing_and_describing(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """What was listed is another run by the time it's described: the newer one counts."""
    run(systemd, cgroups, "web.service")
    systemd.interlude("Id", {"do": "restart", "name": "web.service", "main_pid": 77})
    update(tracker, following)
    assert tracker.present()[0][0].unit.main_pid == 77


def test_a_unit_that_ends_between_listing_and_describing(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """What was listed isn't there any more when it's described."""
    run(systemd, cgroups, "web.service")
    systemd.interlude("Id", {"do": "remove", "name": "web.service"})
    assert update(tracker, following) == []
    assert tracker.find("web.service") is None


def test_a_restart_while_it_is_described(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """A restart halfway through a description mixes two runs; the signals of it sort that out."""
    path = run(systemd, cgroups, "web.service", main_pid=1)
    systemd.interlude("ControlGroup", {"do": "restart", "name": "web.service", "main_pid": 2})
    update(tracker, following)
    update(tracker, following)
    unit = tracker.present()[0][0].unit
    with Manager(address=systemd.address) as other:
        assert unit == other.describe("web.service")
    assert unit.control_group == path


def test_a_cgroup_that_is_gone_before_it_is_opened(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """The unit has a path and no cgroup at it: it isn't present, until a signal brings the next run."""
    systemd.add("web.service", control_group=SLICE + "/web.service")
    assert update(tracker, following) == []
    cgroups.make(SLICE + "/web.service")
    systemd.restart("web.service")
    assert update(tracker, following) == ["web.service"]


# --- units on their way ---


def test_an_activating_unit(systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker):
    """A slow start may leak too: the unit is present as soon as it has a cgroup, before its job ends."""
    systemd.add("web.service", active_state="inactive", sub_state="dead", invocation_id="")
    systemd.job("JobNew", "web.service")
    assert update(tracker, following) == []
    path = SLICE + "/web.service"
    cgroups.make(path)
    systemd.change("web.service", active_state="activating", sub_state="start-pre", control_group=path)
    assert update(tracker, following) == ["web.service"], "without any signal"
    systemd.restart("web.service", active_state="active", sub_state="running")
    assert update(tracker, following) == ["web.service"]
    assert tracker.present()[0][0].unit.active_state == "active"


def test_a_job_that_ends_is_looked_at_no_more(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """A start that failed leaves nothing to ask about at each tick."""
    systemd.add("web.service", active_state="inactive", invocation_id="")
    systemd.job("JobNew", "web.service")
    update(tracker, following)
    systemd.job("JobRemoved", "web.service")
    update(tracker, following)
    before = len(systemd.calls("Id"))
    update(tracker, following)
    assert len(systemd.calls("Id")) == before


# --- a manager that reloads, or is away ---


def test_a_reload_of_the_manager(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """While the manager reloads, every unit stays; afterwards all are looked at again."""
    run(systemd, cgroups, "web.service")
    run(systemd, cgroups, "web2.service")
    update(tracker, following)
    cgroup = tracker.present()[0][1]
    systemd.reloading(active=True)
    systemd.remove("web.service")
    assert update(tracker, following) == ["web.service", "web2.service"]
    systemd.add("web.service", control_group=SLICE + "/web.service", description="new")
    systemd.remove("web2.service", announce=False)
    systemd.reloading(active=False)
    assert update(tracker, following) == ["web.service"]
    assert tracker.present()[0][0].unit.description == "new"
    assert tracker.present()[0][1] is cgroup, "the same run"


@pytest.mark.parametrize("how", ["away", "closed"])
def test_a_manager_that_is_lost(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker, how: str
):
    """What was known goes on being sampled; a new connection catches up with what was missed."""
    run(systemd, cgroups, "web.service")
    update(tracker, following)
    if how == "away":
        systemd.job("JobRemoved", "web.service")
        following.list_units()
        systemd.leave()
    else:
        following.close()
    for _ in range(2):
        with pytest.raises(BusLostError):
            tracker.update(following)
        ((_, cgroup),) = tracker.present()
        assert cgroup.read_file("memory.current") == "4096\n"
    systemd.come_back()
    run(systemd, cgroups, "web2.service", announce=False)
    systemd.remove("web.service", announce=False)
    with Manager(address=systemd.address) as other:
        other.follow()
        tracker.resume()
        assert update(tracker, other) == ["web2.service"]


def test_a_listing_that_is_lost_is_made_up_for(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """If the manager goes away before it was listed, or halfway through, the next update goes on there."""
    for number in range(3):
        run(systemd, cgroups, f"web{number}.service")
    for method in ("ListUnits", "ControlGroup"):
        systemd.refuse(method, "org.freedesktop.DBus.Error.NoReply")
        with pytest.raises(BusLostError):
            tracker.update(following)
        systemd.allow(method)
    tracker.update(following)
    assert len(tracker.present()) == 3


def test_one_unit_that_cannot_be_described(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """A unit that the manager refuses to describe holds up none of the others, and comes later."""
    run(systemd, cgroups, "web.service")
    run(systemd, cgroups, "web-x.scope")
    systemd.refuse("MainPID", "org.freedesktop.DBus.Error.AccessDenied")
    assert update(tracker, following) == ["web-x.scope"]
    systemd.allow("MainPID")
    assert update(tracker, following) == ["web-x.scope", "web.service"]


def test_a_listing_that_is_refused(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """A refusal is no lost connection, but `update` promises its caller one kind of error only."""
    run(systemd, cgroups, "web.service")
    update(tracker, following)
    systemd.reloading(active=False)
    following.list_units()
    systemd.refuse("ListUnits", "org.freedesktop.DBus.Error.LimitsExceeded")
    tracker.update(following)
    assert len(tracker.present()) == 1
    systemd.allow("ListUnits")
    run(systemd, cgroups, "web2.service", announce=False)
    assert update(tracker, following) == ["web.service", "web2.service"]


# --- protection ---


@pytest.mark.parametrize(
    "name, path, why",
    [
        ("web.service", "/system.slice/web.service", None),
        ("web.slice", "/system.slice", "unitmem itself"),
        ("web.slice", "/", "unitmem itself"),
        ("web.slice", "/web.slice", "ssh.service"),
        ("web.slice", "/web", None),
        ("web-unitmem.service", "/system.slice/unitmem.service", "unitmem itself"),
    ],
)
def test_protection(
    systemd: FakeSystemd1,
    cgroups: CgroupTree,
    following: Manager,
    tracker: Tracker,
    name: str,
    path: str,
    why: str | None,
):
    """What holds unitmem or a core unit is protected; the reason names which."""
    systemd.add("ssh.service", control_group="/web.slice/ssh.service")
    systemd.add(name, control_group=path)
    cgroups.make(path)
    update(tracker, following)
    reason = tracker.find(name).protected
    assert reason is None if why is None else why in str(reason)


def test_protection_without_core_units(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """Its own slice is protected for unitmem's sake alone."""
    systemd.add("web.slice", control_group=SLICE)
    update(tracker, following)
    assert "unitmem itself" in str(tracker.find("web.slice").protected)


def test_protection_follows_the_core_units(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    """A slice is protected from when a core unit starts in it until that one stops."""
    systemd.add("web.slice", control_group="/web.slice")
    cgroups.make("/web.slice")

    def protected() -> bool:
        update(tracker, following)
        return tracker.find("web.slice").protected is not None

    assert not protected()
    systemd.add("ssh@1.service", control_group="/web.slice/ssh@1.service")
    assert protected()
    systemd.change("ssh@1.service", control_group="", active_state="inactive")
    systemd.job("JobRemoved", "ssh@1.service")
    assert not protected()
    systemd.restart("ssh@1.service", control_group="/web.slice/ssh@1.service")
    assert protected()
    systemd.remove("ssh@1.service")
    assert not protected()


def test_closing(systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager):
    """Nothing stays open."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    tracker = Tracker(lambda _: True, None, cgroups.root)
    run(systemd, cgroups, "web.service")
    update(tracker, following)
    assert descriptors() > before
    tracker.close()
    assert descriptors() == before


# --- runs that an OOM kill ends ---


@pytest.fixture
def counting(cgroups: CgroupTree) -> Iterator[Tracker]:
    """As `tracker`, and remembers ends by an OOM kill."""
    tracker = Tracker(lambda name: matches(name, ["web*"]), None, cgroups.root, counts_oom=True)
    yield tracker
    tracker.close()


def ends(tracker: Tracker, manager: Manager, now: float) -> tuple[float, ...]:
    """Let it learn all that has happened until `now`; the ends of web.service."""
    manager.list_units()
    tracker.update(manager, now=now)
    return tracker.oom_ends("web.service")


def test_an_oom_kill_that_ends_a_run_counts_from_the_next_run_on(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, counting: Tracker
):
    """While that run is there, the kill is in its own counter; each change of its state says the result again."""
    run(systemd, cgroups, "web.service")
    assert ends(counting, following, 1) == ()
    systemd.end("web.service", "oom-kill")
    assert ends(counting, following, 2) == ()
    systemd.end("web.service", "oom-kill")
    assert ends(counting, following, 3) == ()
    systemd.end("web.service", "success")
    assert ends(counting, following, 400) == (2,)
    assert ends(counting, following, 500) == (2,)


def test_each_of_several_runs_between_two_updates_counts(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, counting: Tracker
):
    run(systemd, cgroups, "web.service")
    ends(counting, following, 1)
    for _ in range(3):
        systemd.end("web.service", "oom-kill")
        systemd.restart("web.service")
        systemd.end("web.service", "success")
    assert ends(counting, following, 5) == (5, 5, 5)


def test_other_ends_do_not_count_nor_do_other_units(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, counting: Tracker
):
    for name in ("web.service", "db.service"):
        run(systemd, cgroups, name)
    ends(counting, following, 1)
    for result in ("signal", "success", "exit-code", "success"):
        systemd.end("web.service", result)
    for result in ("oom-kill", "success"):
        systemd.end("db.service", result)
    assert ends(counting, following, 5) == ()
    assert counting.oom_ends("db.service") == ()


def test_results_are_followed_only_where_a_policy_asks_for_them(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, tracker: Tracker
):
    run(systemd, cgroups, "web.service")
    ends(tracker, following, 1)
    for result in ("oom-kill", "success"):
        systemd.end("web.service", result)
    assert ends(tracker, following, 2) == ()
    assert not following.follows_results
    tracker.govern(lambda name: matches(name, ["web*"]), counts_oom=True)
    ends(tracker, following, 3)
    for result in ("oom-kill", "success"):
        systemd.end("web.service", result)
    assert ends(tracker, following, 4) == (4,)


def test_ends_that_are_remembered_are_bounded(
    systemd: FakeSystemd1, cgroups: CgroupTree, following: Manager, counting: Tracker
):
    run(systemd, cgroups, "web.service")
    ends(counting, following, 1)
    for now in range(15):
        for _ in range(20):
            systemd.end("web.service", "oom-kill")
            systemd.end("web.service", "success")
        last = ends(counting, following, now)
    assert 100 < len(last) < 300
    assert last[-20:] == (14,) * 20, "the latest are kept"
