"""What a watch says of itself: once, with fields that a machine can wait for."""

from __future__ import annotations

import io
import socket
from types import SimpleNamespace

import pytest

from unitmem.measure.sample import UnitSample
from unitmem.policy.actions import Stop
from unitmem.policy.decision import Decision, Obstacle, Override, Refusal
from unitmem.policy.journal_fields import SET_BACK_MESSAGE_ID, UNKNOWN_MESSAGE_ID
from unitmem.policy.state import Ladder, State, StepState
from unitmem.record.recorder import Recorder
from unitmem.tell.journal import Journal
from unitmem.tell.reporter import Reporter
from unitmem.unit import Invocation, ManagerKind, Unit

BLIND = State(
    {("p", "a.service"): Ladder(Invocation("a.service", "1" * 32, 7), (StepState(unknown={"pss": "no"}),))}
)


@pytest.fixture
def told(tmp_path):
    """A reporter, and what has reached journald: a dict for each entry."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "s"))
        journald.setblocking(False)
        recorder = Recorder(None, "boot")
        reporter = Reporter(Journal(io.StringIO(), tmp_path / "s"), recorder, ManagerKind.SYSTEM)

        def entries():
            found = []
            while True:
                try:
                    lines = journald.recv(1 << 16).decode().splitlines()
                except BlockingIOError:
                    return found
                found.append(dict(line.split("=", 1) for line in lines))

        yield SimpleNamespace(reporter=reporter, recorder=recorder, entries=entries)
        reporter.close()


def test_a_guard_that_sees_nothing_says_so_once_a_run(told):
    for now in range(3):
        told.reporter.unknown(BLIND, now)
    (entry,) = told.entries()
    assert entry["MESSAGE"] == "a.service: policy p, step 1 can't fire: pss is unknown (no)"
    assert entry["MESSAGE_ID"] == UNKNOWN_MESSAGE_ID
    assert (entry["UNITMEM_UNIT"], entry["UNITMEM_POLICY"], entry["UNITMEM_STEP"]) == ("a.service", "p", "1")


def test_what_runs_in_a_unit_that_is_not_judged_is_told_where_its_name_does_not_say_it(told):
    ladder = Ladder(Invocation("run-u12.service", "1" * 32, 7), (StepState(unknown={"pss": "no"}),))
    units = {"run-u12.service": UnitSample(Unit("run-u12.service", "/usr/bin/backup"))}
    told.reporter.unknown(State({("p", "run-u12.service"): ladder}), 1, units)
    (entry,) = told.entries()
    assert entry["MESSAGE"].startswith("run-u12.service (/usr/bin/backup): policy p, step 1 can't fire")
    assert entry["UNITMEM_DESCRIPTION"] == "/usr/bin/backup"


def test_a_unit_that_is_restarted_again_and_again_is_told_of_twice(told):
    for run in range(50):
        invocation = Invocation("a.service", f"{run:032x}", 7)
        told.reporter.unknown(
            State({("p", "a.service"): Ladder(invocation, (StepState(unknown={"pss": "no"}),))}), 4.0 * run
        )
        told.reporter.unknown(State(), 4.0 * run + 2)
    assert len(told.entries()) == 2


def test_what_was_set_back_is_told(told):
    told.reporter.set_back(
        Override("p", "a.service", {"MemoryHigh": None}), "set back to MemoryHigh=infinity", 1.0
    )
    (entry,) = told.entries()
    assert entry["MESSAGE_ID"] == SET_BACK_MESSAGE_ID
    assert (entry["OBJECT_SYSTEMD_UNIT"], entry["UNITMEM_POLICY"]) == ("a.service", "p")


def test_a_history_that_can_not_be_written_is_told_once_and_that_it_can_again(told):
    for trouble in ("the disk is full", "the disk is full", None, None):
        told.recorder.trouble = trouble
        told.reporter.trouble()
    assert [entry["MESSAGE"] for entry in told.entries()] == [
        "the disk is full",
        "the history is written again",
    ]


def test_what_withholds_a_step_around_its_threshold_is_told_once_while_it_lasts(told):
    def withheld(at, obstacle, until=None):
        refusal = Refusal(obstacle, f"{obstacle} until {until}", until)
        invocation = Invocation("a.service", "1" * 32, 7)
        told.reporter.decided(Decision(at, "p", 0, Stop(), invocation, 0, 0, (), refusal=refusal))

    for at in range(0, 100, 4):
        withheld(at, Obstacle.COOLING_DOWN, 60 if at < 60 else 160)
        withheld(at, Obstacle.OUT_OF_BUDGET, 100)
        withheld(at, Obstacle.PROTECTED)
    assert [entry["MESSAGE"].partition("since ")[2].partition(";")[0] for entry in told.entries()] == [
        "cooling down until 60",
        "out of budget until 100",
        "protected until None",
        "cooling down until 160",
    ]
