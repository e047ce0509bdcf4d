"""What is told of each decision and of its outcome: whole sentences, as an operator reads them at night."""

from __future__ import annotations

from dataclasses import replace
from signal import Signals

import pytest

from unitmem.kernel.process import Process
from unitmem.policy.actions import (
    ACTIONS,
    Freeze,
    Kill,
    LastResort,
    Log,
    Reclaim,
    Restart,
    Run,
    SetProperties,
    Signal,
    Stop,
    Target,
    Thaw,
)
from unitmem.policy.condition import Comparison, Finding
from unitmem.policy.decision import Decision, Obstacle, Outcome, Refusal, Result
from unitmem.tell.journal import Priority
from unitmem.tell.wording import decision_entry, outcome_entry
from unitmem.unit import Invocation, ManagerKind

M = 2**20
RUN = "0123456789abcdef0123456789abcdef"
FINDING = Finding(Comparison("workingset", ">", 85, of="limit"), True, 450 * M, 435 * M, {})
BREACH = Decision(
    at=100.0,
    policy="web",
    step=1,
    action=Log(),
    invocation=Invocation("a.service", RUN, 7),
    held=32.0,
    hold=30.0,
    findings=(FINDING,),
)
WHY = "a.service: workingset 450.0M > 435.0M (85% of limit) for 32s (policy web, step 2)"

# what each obstacle says of itself, as the engine has it; what is told after it; and how loudly
OBSTACLES = {
    Obstacle.PROTECTED: (
        "the machine can't be run or reached without it",
        "; to act on it, name it under the policy's `unprotect:`",
        Priority.WARNING,
    ),
    Obstacle.COOLING_DOWN: ("it is cooling down for another 4min", "", Priority.INFO),
    Obstacle.REFUSED_BY_MANAGER: (
        "the manager refuses it as the unit is configured: Unit a.service not found.",
        "",
        Priority.WARNING,
    ),
    Obstacle.OUT_OF_BUDGET: (
        "its budget of 3 actions per 1h is spent for another 20min",
        "",
        Priority.ERROR,
    ),
    Obstacle.OUT_OF_FILE_BUDGET: (
        "the file's budget of 3 actions per 1h is spent for another 20min",
        "",
        Priority.ERROR,
    ),
}

# the action: what is told as it is performed, observed, and not performed
SENTENCES = [
    (
        Signal(Signals.SIGUSR1),
        "sending SIGUSR1 to its main process",
        "would send SIGUSR1 to its main process, but the policy only observes",
        "not sending SIGUSR1 to its main process",
    ),
    (
        Signal(Signals.SIGTERM, Target.ALL),
        "sending SIGTERM to all its processes",
        "would send SIGTERM to all its processes, but the policy only observes",
        "not sending SIGTERM to all its processes",
    ),
    (
        Signal(Signals.SIGTERM, Target.LARGEST, 5, LastResort.KILL),
        "sending SIGTERM to its largest process (SIGKILL after 5s)",
        "would send SIGTERM to its largest process (SIGKILL after 5s), but the policy only observes",
        "not sending SIGTERM to its largest process",
    ),
    (
        Stop(90),
        "stopping it within 1min 30s",
        "would stop it within 1min 30s, but the policy only observes",
        "not stopping it",
    ),
    (
        Stop(30, LastResort.KILL),
        "stopping it (SIGKILL after 30s)",
        "would stop it (SIGKILL after 30s), but the policy only observes",
        "not stopping it",
    ),
    (
        Restart(30),
        "restarting it within 30s",
        "would restart it within 30s, but the policy only observes",
        "not restarting it",
    ),
    (
        Restart(30, LastResort.KILL),
        "restarting it (SIGKILL to the old run after 30s)",
        "would restart it (SIGKILL to the old run after 30s), but the policy only observes",
        "not restarting it",
    ),
    (
        Kill(),
        "killing all its processes",
        "would kill all its processes, but the policy only observes",
        "not killing all its processes",
    ),
    (
        Reclaim(512 * M),
        "reclaiming 512.0M of its memory",
        "would reclaim 512.0M of its memory, but the policy only observes",
        "not reclaiming 512.0M of its memory",
    ),
    (
        SetProperties((("MemoryHigh", 512 * M), ("MemoryMax", None))),
        "setting MemoryHigh=512.0M, MemoryMax=infinity (until the episode ends)",
        "would set MemoryHigh=512.0M, MemoryMax=infinity (until the episode ends), but the policy only observes",
        "not setting MemoryHigh=512.0M, MemoryMax=infinity",
    ),
    (
        Freeze(),
        "freezing it",
        "would freeze it, but the policy only observes",
        "not freezing it",
    ),
    (
        Thaw(),
        "thawing it",
        "would thaw it, but the policy only observes",
        "not thawing it",
    ),
    (
        Run(("/usr/bin/notify", "a b", "--new\nline"), timeout=60),
        r"running /usr/bin/notify 'a b' '--new\nline' (for at most 1min)",
        r"would run /usr/bin/notify 'a b' '--new\nline' (for at most 1min), but the policy only observes",
        r"not running /usr/bin/notify 'a b' '--new\nline'",
    ),
]
each_action = pytest.mark.parametrize(
    ("action", "acting", "observed", "undone"), SENTENCES, ids=[str(row[0]) for row in SENTENCES]
)


def test_every_action_has_its_sentences():
    assert {type(row[0]) for row in SENTENCES} | {Log} == set(ACTIONS.values())


@each_action
def test_what_is_told_of_a_decision(action, acting, observed, undone):
    decision = replace(BREACH, action=action)
    assert decision_entry(decision).message == f"{WHY}: {acting}"
    assert decision_entry(replace(decision, observe=True)).message == f"{WHY}: {observed}"
    for obstacle, (reason, remedy, priority) in OBSTACLES.items():
        entry = decision_entry(replace(decision, refusal=Refusal(obstacle, reason)))
        assert entry.message == f"{WHY}: {undone}, since {reason}{remedy}"
        assert entry.priority is priority


def test_a_log_step_tells_why_and_no_more():
    """There is nothing to do, to observe or to refuse; only a cooldown keeps it from beginning an episode."""
    assert decision_entry(BREACH).message == WHY
    assert decision_entry(replace(BREACH, observe=True)).message == WHY
    cooling = Refusal(Obstacle.COOLING_DOWN, "it is cooling down for another 4min")
    entry = decision_entry(replace(BREACH, refusal=cooling))
    assert entry.message == f"{WHY}: no new episode begins, since it is cooling down for another 4min"


def test_the_process_that_was_measured_is_named():
    action = Signal(Signals.SIGTERM, Target.LARGEST, 5, LastResort.KILL)
    decision = replace(BREACH, action=action, victim=Process(7, 1, "worker"))
    sending = "sending SIGTERM to its largest process, pid 7 (worker) (SIGKILL after 5s)"
    assert decision_entry(decision).message == f"{WHY}: {sending}"


@pytest.mark.parametrize(
    ("findings", "hold", "why"),
    [
        ((FINDING,), 0.0, "workingset 450.0M > 435.0M (85% of limit)"),
        (
            (FINDING, Finding(Comparison("pressure.full.avg10", ">", 40), True, 55.0, 40.0, {})),
            30.0,
            "workingset 450.0M > 435.0M (85% of limit) and pressure.full.avg10 55.0% > 40% for 32s",
        ),
    ],
)
def test_the_reason_names_every_number_and_the_span_if_one_was_asked_for(findings, hold, why):
    decision = replace(BREACH, findings=findings, hold=hold)
    assert decision_entry(decision).message == f"a.service: {why} (policy web, step 2)"


OUTCOMES = [
    (
        Signal(Signals.SIGTERM),
        "SIGTERM failed: pid 7 (web) still runs 10s after SIGTERM",
        "no SIGTERM: the process ended before it was signalled",
    ),
    (
        Stop(30),
        "stop failed: still there 30s after a stop was asked for",
        "no stop: it was stopped or restarted meanwhile, and a new run is left alone",
    ),
    (
        Restart(30),
        "restart failed: 30s after it was asked for, the unit is failed (failed)",
        "no restart: it is stopping already",
    ),
    (
        Kill(),
        "kill failed: still there 10s after SIGKILL to all its processes",
        "no kill: it was stopped or restarted meanwhile, and a new run is left alone",
    ),
    (
        Reclaim(512 * M),
        "reclaim failed: the kernel could reclaim less than 512.0M",
        "no reclaim: the unit ended before it was seen to work",
    ),
    (
        SetProperties((("MemoryHigh", 512 * M), ("MemoryMax", None))),
        "change of MemoryHigh, MemoryMax failed: the manager accepted it, but memory.high is max",
        "no change of MemoryHigh, MemoryMax: the unit ended before it was seen to work",
    ),
    (
        Freeze(),
        "freeze failed: it is not frozen 10s after the decision",
        "no freeze: the unit ended before it was seen to work",
    ),
    (
        Thaw(),
        "thaw failed: it is not thawed 10s after the decision",
        "no thaw: the unit ended before it was seen to work",
    ),
    (
        Run(("/usr/bin/notify", "a b")),
        "run of /usr/bin/notify failed: its result is exit-code; see `journalctl -u x.service`",
        "no run of /usr/bin/notify: it was stopped or restarted meanwhile, and a new run is left alone",
    ),
]


@pytest.mark.parametrize(("action", "failed", "gone"), OUTCOMES, ids=[str(row[0]) for row in OUTCOMES])
def test_what_is_told_of_an_outcome(action, failed, gone):
    """A success speaks for itself; otherwise it is said first what came to nothing."""
    decision = replace(BREACH, action=action)
    results = [
        (Result.VERIFIED, "done; gone 3s after the decision", Priority.NOTICE),
        (Result.FAILED, failed, Priority.ERROR),
        (Result.GONE, gone, Priority.NOTICE),
    ]
    for result, sentence, priority in results:
        detail = sentence if result is Result.VERIFIED else sentence.partition(": ")[2]
        entry = outcome_entry(Outcome(decision, result, detail, 103.0))
        assert entry is not None
        assert entry.message == f"a.service: {sentence} (policy web, step 2)"
        assert (entry.priority, entry.fields["UNITMEM_RESULT"]) == (priority, result)


@pytest.mark.parametrize(
    ("action", "result"),
    [(Log(), Result.VERIFIED), (Stop(), Result.OBSERVED), (Stop(), Result.REFUSED)],
)
def test_what_the_decision_has_said_is_not_said_again(action, result):
    assert outcome_entry(Outcome(replace(BREACH, action=action), result, "", 103.0)) is None


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({"action": Stop()}, {"UNITMEM_ACTION": "stop"}),
        ({"action": Signal(Signals.SIGHUP)}, {"UNITMEM_ACTION": "SIGHUP"}),
        ({"action": SetProperties((("MemoryHigh", M),))}, {"UNITMEM_ACTION": "set"}),
        ({}, {"UNITMEM_ACTION": "log", "UNITMEM_RESULT": "verified"}),
        ({"action": Stop(), "observe": True}, {"UNITMEM_RESULT": "observed"}),
        (
            {"action": Stop(), "refusal": Refusal(Obstacle.OUT_OF_FILE_BUDGET, "it is spent")},
            {"UNITMEM_RESULT": "refused", "UNITMEM_OBSTACLE": "out of the file's budget"},
        ),
    ],
)
def test_the_fields_of_a_decision(values, fields):
    entry = decision_entry(replace(BREACH, **values))
    usual = {
        "OBJECT_SYSTEMD_UNIT": "a.service",
        "OBJECT_SYSTEMD_INVOCATION_ID": RUN,
        "UNITMEM_POLICY": "web",
        "UNITMEM_STEP": "2",
        "UNITMEM_HELD_USEC": "32000000",
        "UNITMEM_DECIDED_USEC": int(BREACH.at * 1e6),
        "UNITMEM_MEASURE": "workingset",
        "UNITMEM_CONDITION": "workingset > 85% of limit",
        "UNITMEM_VALUE": str(450 * M),
        "UNITMEM_THRESHOLD": str(435 * M),
    }
    assert {**usual, **fields}.items() <= entry.fields.items()


def test_a_share_that_ends_within_a_byte_is_told_in_whole_bytes():
    (finding,) = BREACH.findings
    entry = decision_entry(replace(BREACH, findings=(replace(finding, threshold=107374182.4),)))
    assert entry.fields["UNITMEM_THRESHOLD"] == "107374182"


def test_a_unit_of_a_user_is_found_as_such():
    entry = decision_entry(BREACH, ManagerKind.USER)
    assert entry.fields["OBJECT_SYSTEMD_USER_UNIT"] == "a.service"
    assert "OBJECT_SYSTEMD_UNIT" not in entry.fields


def test_an_outcome_names_its_process():
    process = Process(7, 1, "worker")
    entry = outcome_entry(
        Outcome(replace(BREACH, action=Signal(Signals.SIGTERM)), Result.VERIFIED, "", 1, process=process)
    )
    assert entry is not None
    assert (entry.fields["OBJECT_PID"], entry.fields["UNITMEM_PROCESS"]) == (7, "pid 7 (worker)")


@pytest.mark.parametrize("refusal", [None, Refusal(Obstacle.COOLING_DOWN, "it is cooling down")])
def test_what_runs_in_a_unit_with_a_made_up_name_is_told(refusal):
    decision = replace(
        BREACH,
        action=Stop(30),
        refusal=refusal,
        invocation=Invocation("run-u12.service", RUN, 7),
        content="/usr/bin/backup",
    )
    for entry in (
        decision_entry(decision),
        outcome_entry(Outcome(decision, Result.FAILED, "it is still there", 1)),
    ):
        assert entry is not None
        assert entry.message.startswith("run-u12.service (/usr/bin/backup): ")
        assert (entry.fields["UNITMEM_UNIT"], entry.fields["UNITMEM_DESCRIPTION"]) == (
            "run-u12.service",
            "/usr/bin/backup",
        )


def test_a_unit_whose_name_says_what_runs_in_it_has_no_description():
    assert "UNITMEM_DESCRIPTION" not in decision_entry(BREACH).fields
