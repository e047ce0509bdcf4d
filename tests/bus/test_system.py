"""The library's `System` over the real bus client: what it says of units, and how it follows them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cgroup_tree import CgroupTree
from fake_systemd1 import MANAGER, FakeSystemd1, FakeUnit

from unitmem import NoSuchUnitError, State, System, UnsupportedSystemError, evaluate, load_policies
from unitmem.errors import BusLostError
from unitmem.manager.systemd import Manager

SLICE = "/system.slice"


@pytest.fixture
def run(systemd: FakeSystemd1, cgroups: CgroupTree) -> Callable[..., None]:
    """run("web.service", 1, 2, current=4096): have it run, with these processes and memory files; what else is said of it."""

    def run(name: str, *pids: int, at: str = SLICE, **given: Any) -> None:
        path = f"{at}/{name}"
        said = {key: given.pop(key) for key in tuple(given) if key in FakeUnit.__dataclass_fields__}
        directory = cgroups.make(path, *pids)
        for file, value in {"max": "max", "high": "max", **given}.items():
            cgroups.add_file(path, f"memory.{file.replace('_', '.')}", f"{value}\n")
        systemd.add(name, control_group=path, directory=directory, **said)

    return run


@pytest.fixture
def connect(systemd: FakeSystemd1, cgroups: CgroupTree) -> Callable[[], System]:
    """connect(): a `System` of the fake manager and the tree."""
    cgroups.root.joinpath("cgroup.controllers").write_text("cpu memory\n")
    return lambda: System(connect=lambda _: Manager(address=systemd.address), cgroups=cgroups.root)


@pytest.fixture
def system(connect: Callable[[], System]) -> Iterator[System]:
    with connect() as system:
        yield system


# --- one look ----------------------------------------------------------------------------------


def test_a_unit_is_a_value_with_its_measures_by_name(system, run):
    run("web@1.service", os.getpid(), current=5 << 20, max=8 << 20)
    (web,) = system.units("web@*")
    assert (web.name, web.current, web.max) == ("web@1.service", 5 << 20, 8 << 20)
    assert web["current"] == web.current
    assert web.limit == 8 << 20
    # this very process: some megabytes, and no more than RSS
    assert 1 << 20 < web.pss == web.processes[0].pss <= web.rss
    assert web.processes[0].pid == os.getpid()
    assert Path("python").name in web.processes[0].command
    assert web.levels[0].max == 8 << 20
    assert web["swap_max"] is None
    assert "swap_max" in web.unknown
    assert repr(web).startswith("<UnitSample web@1.service: current=5242880, ")
    with pytest.raises(KeyError):
        web["pess"]


def test_only_processes_that_are_asked_for_are_read(system, run):
    run("web.service", os.getpid())
    web = system.unit("web", measures={"current", "pressure.full.avg10"})
    assert web.current == 4096
    assert (web.pss, web.processes) == (None, ())
    assert web["pressure.full.avg10"] is None
    assert web.unknown["pressure.full.avg10"].startswith("memory.pressure: ")
    with pytest.raises(ValueError, match=r"no measure 'psss' \(did you mean `pss`\?\)"):
        system.unit("web", measures={"psss"})


def test_a_name_is_a_unit_in_any_state_or_an_alias(system, run, systemd):
    run("real.service", aliases=("nick.service",))
    systemd.add("idle.service", active_state="inactive")
    assert system.unit("nick").name == "real.service"
    assert [unit.name for unit in system.units("nick", "real")] == ["real.service"]
    idle = system.unit("idle")
    assert (idle.invocation, idle.current) == (None, None)
    assert idle.unknown["current"] == "the unit has no cgroup now"
    with pytest.raises(NoSuchUnitError):
        system.unit("missing")
    with pytest.raises(ValueError, match="takes patterns"):
        system.unit("web@*")


def test_a_machine_without_the_controller_is_told_of(connect, cgroups):
    cgroups.root.joinpath("cgroup.controllers").write_text("cpu\n")
    with pytest.raises(UnsupportedSystemError):
        connect()


# --- the calls that it takes -------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 50])
def test_two_calls_list_all_units(system, run, systemd, count):
    """However many there are, and some that run without a cgroup, or in a slice below."""
    for number in range(count):
        run(f"u{number}.service", current=number)
    run("web.service", at="/system.slice/system-web.slice")
    systemd.add("idle.service", sub_state="exited")
    sample = system.sample(brief=True, measures={"current"})
    assert systemd.calls() == [("ListUnits", []), ("ControlGroup", [MANAGER, "ControlGroup"])]
    assert set(sample.units) == {"web.service", *(f"u{number}.service" for number in range(count))}
    web = sample.units["web.service"].unit
    assert (web.control_group, web.slice) == (
        "/system.slice/system-web.slice/web.service",
        "system-web.slice",
    )


def test_a_brief_sample_reads_what_is_asked_for(system, run, systemd):
    run("web.service", current=7)
    (web,) = system.sample(brief=True, measures={"current", "swap"}).units.values()
    assert (dict(web.values), set(web.unknown)) == ({"current": 7}, {"swap"})
    (web,) = system.sample("web", measures={"current"}).units.values()
    assert {"swap", "workingset", "events.oom"} <= set(web.unknown)


def test_two_calls_show_a_unit(system, run, systemd):
    run("web.service", os.getpid(), current=5 << 20, aliases=("nick.service",))
    for name in ("web", "nick"):
        web = system.unit(name)
        assert (web.name, web.current, web.unit.control_group) == (
            "web.service",
            5 << 20,
            f"{SLICE}/web.service",
        )
    assert [method for method, _ in systemd.calls()] == ["GetUnit", "GetAll"] * 2


def test_a_slice_around_a_core_unit_is_protected_without_a_further_call(system, run, systemd, cgroups):
    run("dbus.service")
    systemd.add("system.slice", control_group=SLICE, slice="-.slice")
    cgroups.make("/web.slice")
    systemd.add("web.slice", control_group="/web.slice", slice="-.slice")
    assert system.unit("system.slice").protected == "dbus.service runs in it"
    assert system.unit("web.slice").protected is None
    assert [method for method, _ in systemd.calls()] == ["GetUnit", "GetAll"] * 2
    listed = system.sample("*.slice", brief=True)
    assert {name: unit.protected for name, unit in listed.units.items()} == {
        "system.slice": "dbus.service runs in it",
        "web.slice": None,
    }


def test_a_listed_unit_is_as_complete_as_one_that_is_described(system, run, systemd, manager):
    run("web@1.service", main_pid=7, active_enter=5_000_000)
    run("db.service", active_state="activating", inactive_exit=5_000_000, control_pid=8)
    units = [each.unit for each in system.units("*.service", measures=())]
    calls = systemd.calls()
    assert units == [manager.describe(name) for name in ("db.service", "web@1.service")]
    assert len(calls) == 2 + 4 * len(units)


def test_a_name_in_two_slices_is_asked_for(system, run, systemd, cgroups):
    """What is left of an earlier run in another slice has the same name."""
    run("web.service", current=7)
    cgroups.make("/web.slice/web.service")
    for brief in (False, True):
        (web,) = system.sample("w*", brief=brief).units.values()
        assert (web.current, web.unit.control_group) == (7, f"{SLICE}/web.service")


def test_cgroups_that_units_have_made_are_none_of_units(system, run, systemd, cgroups):
    run("web.service", current=7)
    cgroups.make(f"{SLICE}/web.service/system.slice/db.service")  # a container's own
    cgroups.make("/other.slice/db.slice/db.service")  # no place for a slice of that name
    systemd.add("db.service", sub_state="exited")
    assert set(system.sample(brief=True).units) == {"web.service"}


def test_a_users_units_are_below_the_users_manager(system, run, systemd, cgroups):
    top = "/user.slice/user-1000.slice/user@1000.service"
    systemd.be_in(top)
    run("app.service", at=f"{top}/app.slice", slice="app.slice")
    run("db.service")
    (app,) = system.sample(brief=True).units.values()
    assert app.unit.control_group == f"{top}/app.slice/app.service"


# --- following ---------------------------------------------------------------------------------


def test_samples_follow_units_that_start_and_end(system, run, systemd):
    """At once: the next sample by the clock would come in an hour."""
    samples = system.follow("web*", interval=3600, measures={"current"})
    assert list(next(samples).units) == []
    run("web2.service")
    assert list(next(samples).units) == ["web2.service"]
    run("db.service")
    run("web1.service")
    assert list(next(samples).units) == ["web1.service", "web2.service"]
    systemd.remove("web2.service")
    assert list(next(samples).units) == ["web1.service"]
    samples.close()


def test_samples_come_every_interval(system, run):
    run("web.service")
    began = time.monotonic()
    samples = system.follow("web", interval=0.05, measures={"current"})
    first, second, third = next(samples), next(samples), next(samples)
    assert first.at < second.at < third.at
    assert second.at - began >= 0.05
    assert third.at - began >= 0.1
    with pytest.raises(ValueError, match="finite and above 0"):
        system.follow("web", interval=0)


def test_an_alias_is_followed_to_its_unit_also_when_that_comes_later(system, run):
    samples = system.follow("nick", interval=3600, measures={"current"})
    assert list(next(samples).units) == []
    run("real.service", aliases=("nick.service",))
    assert list(next(samples).units) == ["real.service"]
    samples.close()


def test_a_bus_that_goes_ends_the_iterator_with_an_error(connect, run, systemd, monkeypatch):
    run("web.service")
    with connect() as system:
        samples = system.follow("web", interval=0.01)
        next(samples)

        def lost(self):
            raise BusLostError("the connection is lost")

        monkeypatch.setattr(Manager, "changes", lost)
        with pytest.raises(BusLostError):
            next(samples)


# --- deciding ----------------------------------------------------------------------------------


def test_a_policy_is_evaluated_over_what_is_followed(system, run, tmp_path):
    run("web@1.service", current=95 << 20, max=100 << 20)
    run("web@2.service", current=5 << 20, max=100 << 20)
    path = tmp_path / "web.yaml"
    path.write_text(
        'policies: [{name: web, units: ["web@*.service"], steps: [{when: "current > 90% of max", do: stop}]}]\n'
    )
    policies = load_policies(path)
    state, decisions = State(), []
    for sample in system.follow("web@*", interval=0.01, measures=policies.measures):
        state, made = evaluate(policies, sample, state, sample.at)
        decisions += made
        if decisions:
            break
    (decision,) = decisions
    assert (decision.unit, decision.action.name) == ("web@1.service", "stop")


def test_each_thread_may_have_a_system_of_its_own(connect, run):
    run("web.service")
    found = []

    def look():
        with connect() as system:
            found.append(system.unit("web").current)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [4096] * 4
