"""Who ended a run, told from journals as systemd 252 and 257 write them, with forged, torn and late entries in them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.errors import UnitmemError
from unitmem.explain.attribution import Cause, Ending, attribute
from unitmem.explain.entries import (
    OomLine,
    parse_killed,
    parse_oom_kill,
    parse_oomd_kill,
    text,
    unit_of_cgroup,
)
from unitmem.explain.journalctl import FIELDS, command, is_about, parse_entry, read_entries
from unitmem.policy.journal_fields import DECISION_MESSAGE_ID, OUTCOME_MESSAGE_ID

UNIT = "web.service"
ONE, TWO, THREE = ("1" * 32, "2" * 32, "3" * 32)
ASKED = {*FIELDS, "__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", "_BOOT_ID"}
EPOCH, UPTIME = 1_000_000, 5_000  # seconds; nothing depends on them

STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
STARTED = "39f53479d3a045ac8e11786248231fbf"
STOPPING = "de5b426a63be47a7b6ac3eaac82e2f6f"
STOPPED = "9d1aaa27d60140bd96365438aad20286"
SUCCESS = "7ad2d189f7e94e70a38c781354912448"
FAILURE = "d9b373ed55a64feb8242e02dbe79a49c"
PROCESS_EXIT = "98e322203f7a4ed290d09fe03c09fe15"
OUT_OF_MEMORY = "fe6faa94e7774663a0da52717891d8ef"
OOMD_KILL = "d989611b15e44c9dbf31e3c81256e4ed"
RESTART_SCHEDULED = "5eb03494b6584870a536b337290809b3"


# --- journals, line by line --------------------------------------------------------------------


def entry(t, message, boot="b1", **fields):
    return {
        "__REALTIME_TIMESTAMP": str(round((EPOCH + t) * 1e6)),
        "__MONOTONIC_TIMESTAMP": str(round((UPTIME + t) * 1e6)),
        "_BOOT_ID": boot,
        "MESSAGE": message,
        **fields,
    }


def pid1(t, message, message_id=None, run=ONE, unit=UNIT, **fields):
    """What PID 1 says of a unit."""
    if message_id is not None:
        fields["MESSAGE_ID"] = message_id
    return entry(
        t, message, _PID="1", _UID="0", _TRANSPORT="journal", UNIT=unit, INVOCATION_ID=run or "", **fields
    )


def started(t, run=ONE, unit=UNIT, **fields):
    return pid1(t, "Started The web.", STARTED, run, unit, **fields)


def stopping(t, run=ONE, unit=UNIT):
    return pid1(t, "Stopping The web...", STOPPING, run, unit, JOB_TYPE="stop")


def stopped(t, run=ONE, unit=UNIT, job="stop"):
    return pid1(t, "Stopped The web.", STOPPED, run, unit, JOB_TYPE=job, JOB_RESULT="done")


def success(t, run=ONE, unit=UNIT):
    return pid1(t, f"{unit}: Deactivated successfully.", SUCCESS, run, unit)


def failure(t, result, run=ONE, unit=UNIT):
    return pid1(t, f"{unit}: Failed with result '{result}'.", FAILURE, run, unit, UNIT_RESULT=result)


def exited(t, code, status, run=ONE, unit=UNIT, kind="Main process", by="ExecStart"):
    message = f"{unit}: {kind} exited, code={code}, status={status}/X"
    return pid1(t, message, PROCESS_EXIT, run, unit, EXIT_CODE=code, EXIT_STATUS=str(status), COMMAND=by)


def noticed(t, run=ONE, unit=UNIT):
    return pid1(
        t, f"{unit}: A process of this unit has been killed by the OOM killer.", OUT_OF_MEMORY, run, unit
    )


def oomd_noticed(t, run=ONE, unit=UNIT):
    return pid1(t, f"{unit}: systemd-oomd killed 2 process(es) in this unit.", OOMD_KILL, run, unit)


def sent(t, signal, run=ONE, unit=UNIT):
    return pid1(
        t, f"{unit}: Sent signal {signal} to main process 77 (web) on client request.", None, run, unit
    )


def scheduled(t, run=ONE):
    return pid1(t, f"{UNIT}: Scheduled restart job, restart counter is at 1.", RESTART_SCHEDULED, run)


def kernel(t, message, **fields):
    return entry(t, message, **{"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", **fields})


def oom_line(cgroup=f"/system.slice/{UNIT}", limited=None, constraint="MEMCG", task="web", pid=77):
    limited = cgroup if limited is None else limited
    where = ",global_oom" if constraint == "NONE" else f",oom_memcg={limited}"
    return (
        f"oom-kill:constraint=CONSTRAINT_{constraint},nodemask=(null),cpuset={UNIT},mems_allowed=0{where},"
        f"task_memcg={cgroup},task={task},pid={pid},uid=0"
    )


def killed_line(pid=77, name="web", machine=False):
    scope = "Out of memory" if machine else "Memory cgroup out of memory"
    return (
        f"{scope}: Killed process {pid} ({name}) total-vm:400000kB, anon-rss:262144kB, file-rss:5376kB, "
        f"shmem-rss:0kB, UID:0 pgtables:560kB oom_score_adj:0"
    )


def oom(t, pid=77, **line):
    """The kernel's two lines about one victim."""
    return [
        kernel(t, oom_line(pid=pid, **line)),
        kernel(t, killed_line(pid, machine=line.get("constraint") == "NONE")),
    ]


def oomd(t, cgroup=f"/system.slice/{UNIT}"):
    message = (
        f"Killed {cgroup} due to memory pressure for /system.slice being 90.12% > 60.00% for > 20s "
        f"with reclaim activity"
    )
    return entry(
        t, message, _SYSTEMD_UNIT="systemd-oomd.service", _UID="990", _PID="400", _TRANSPORT="journal"
    )


def decision(t, action, result=None, run=ONE, unit=UNIT, **fields):
    known = {} if result is None else {"UNITMEM_RESULT": result}
    return _own(
        t, f"{unit}: anon 300M > 256M: {action}", DECISION_MESSAGE_ID, action, run, unit, known | fields
    )


def outcome(t, action, result, run=ONE, unit=UNIT):
    return _own(t, f"{unit}: {result}", OUTCOME_MESSAGE_ID, action, run, unit, {"UNITMEM_RESULT": result})


def _own(t, message, message_id, action, run, unit, fields):
    own = {
        "MESSAGE_ID": message_id,
        "OBJECT_SYSTEMD_UNIT": unit,
        "OBJECT_SYSTEMD_INVOCATION_ID": run,
        "UNITMEM_UNIT": unit,
        "UNITMEM_POLICY": "p",
        "UNITMEM_STEP": "1",
        "UNITMEM_ACTION": action,
        "_UID": "0",
        "_PID": "900",
        "_TRANSPORT": "journal",
    }
    return entry(t, message, **{**own, **fields})


def flat(lines: Iterable) -> list[dict]:
    """Entries, of which some come in lists, with those fields that journalctl is asked for."""
    entries = [one for line in lines for one in (flat(line) if isinstance(line, list) else [line])]
    return [{name: value for name, value in one.items() if name in ASKED} for one in entries]


def causes(lines, **options):
    """(cause, whether it ended the run) of each ending."""
    return [(ending.cause, ending.ended) for ending in attribute(flat(lines), **options)]


def only(lines, **options) -> Ending:
    (ending,) = attribute(flat(lines), **options)
    return ending


# --- one run, one cause ------------------------------------------------------------------------

OOM_KILLED = [oom(10), noticed(10.1), exited(10.2, "killed", 9), failure(10.3, "oom-kill")]

SINGLE = {
    "limit": (OOM_KILLED, Cause.OOM_KILLER, "its own limit (memory.max) was reached; killed pid 77 (web)"),
    "size": (OOM_KILLED, Cause.OOM_KILLER, "which held 256.0M of anonymous memory"),
    "slice's limit": (
        [oom(10, limited="/system.slice"), noticed(10), exited(10, "killed", 9), failure(10, "oom-kill")],
        Cause.OOM_KILLER,
        "the limit (memory.max) of system.slice was reached",
    ),
    "subgroup": (
        [oom(10, cgroup=f"/system.slice/{UNIT}/pool"), noticed(10), failure(11, "oom-kill")],
        Cause.OOM_KILLER,
        f"the limit (memory.max) of /system.slice/{UNIT}/pool was reached",
    ),
    "machine": (
        [oom(10, constraint="NONE"), noticed(10), exited(10, "killed", 9), failure(10, "oom-kill")],
        Cause.OOM_KILLER,
        "the whole machine was out of memory",
    ),
    "numa": (
        [oom(10, constraint="MEMORY_POLICY"), noticed(10), failure(10, "oom-kill")],
        Cause.OOM_KILLER,
        "(memory policy)",
    ),
    "kernel's lines come last": (
        [noticed(10), exited(10, "killed", 9), failure(10, "oom-kill"), oom(10.01)],
        Cause.OOM_KILLER,
        "its own limit",
    ),
    "kernel's lines hidden": (
        [noticed(10), exited(10, "killed", 9), failure(10, "oom-kill")],
        Cause.OOM_KILLER,
        "the journal doesn't say",
    ),
    "only the result": ([failure(10, "oom-kill")], Cause.OOM_KILLER, "systemd's result is oom-kill"),
    "OOMPolicy=stop, slowly": (
        [oom(10, pid=78), noticed(10), failure(95, "oom-kill")],
        Cause.OOM_KILLER,
        "its own limit",
    ),
    "OOMPolicy=continue, main process": (
        [oom(10), noticed(10), exited(12, "killed", 9), failure(12, "signal")],
        Cause.OOM_KILLER,
        "its own limit",
    ),
    "OOM-killed as it was stopped by hand": (
        [stopping(9), OOM_KILLED],
        Cause.OOM_KILLER,
        "it was being stopped at that time",
    ),
    "oomd, 252": (
        [oomd(10), oomd_noticed(10), exited(10, "killed", 9), failure(10, "oom-kill")],
        Cause.SYSTEMD_OOMD,
        "memory pressure for /system.slice being 90.12% > 60.00% for > 20s",
    ),
    "oomd's line comes second": (
        [oomd_noticed(10), oomd(10), exited(10, "killed", 9), failure(10, "oom-kill")],
        Cause.SYSTEMD_OOMD,
        "memory pressure",
    ),
    "oomd, OOMPolicy=continue": (
        [oomd(10), oomd_noticed(10), exited(10, "killed", 9), failure(10, "signal")],
        Cause.SYSTEMD_OOMD,
        "memory pressure",
    ),
    "oomd, SuccessExitStatus=SIGKILL": (
        [oomd(10), oomd_noticed(10), success(10)],
        Cause.SYSTEMD_OOMD,
        "memory pressure",
    ),
    "oomd, its line hidden": (
        [oomd_noticed(10), exited(10, "killed", 9), failure(10, "oom-kill")],
        Cause.SYSTEMD_OOMD,
        "the journal doesn't say",
    ),
    "stopped by hand": ([stopping(10), success(11), stopped(11)], Cause.REQUEST, "a stop job"),
    "restarted by hand": (
        [stopping(10), success(11), stopped(11, job="restart")],
        Cause.REQUEST,
        "a restart job",
    ),
    "stopped by hand, too slowly": (
        [
            stopping(10),
            pid1(100, f"{UNIT}: State 'stop-sigterm' timed out. Killing."),
            exited(100, "killed", 9),
            failure(100, "timeout"),
        ],
        Cause.REQUEST,
        "it did not stop in time, and was killed",
    ),
    "stopped by hand, badly": (
        [stopping(10), exited(11, "exited", 3), failure(11, "exit-code")],
        Cause.REQUEST,
        "it failed with result exit-code",
    ),
    "systemctl kill": (
        [sent(10, "SIGKILL"), exited(10, "killed", 9), failure(10, "signal")],
        Cause.SIGNAL_REQUEST,
        "SIGKILL",
    ),
    "systemctl kill, handled": ([sent(10, "SIGTERM"), success(70)], Cause.SIGNAL_REQUEST, "SIGTERM"),
    "systemctl kill of a signal that isn't handled": (
        [sent(10, "SIGUSR1"), exited(10, "killed", 10), failure(10, "signal")],
        Cause.SIGNAL_REQUEST,
        "SIGUSR1",
    ),
    "a reload long before": ([sent(10, "SIGHUP"), success(20)], Cause.EXIT, "with success"),
    "a signal that it survived": (
        [sent(10, "SIGUSR1"), exited(20, "dumped", 11), failure(20, "core-dump")],
        Cause.CRASH,
        "SIGSEGV, core dumped",
    ),
    "start timeout": (
        [
            pid1(10, f"{UNIT}: start operation timed out. Terminating."),
            failure(11, "timeout"),
        ],
        Cause.TIMEOUT,
        "start operation timed out",
    ),
    "RuntimeMaxSec": (
        [pid1(10, f"{UNIT}: Service reached runtime time limit. Stopping."), failure(11, "timeout")],
        Cause.TIMEOUT,
        "runtime time limit",
    ),
    "exit status": ([exited(10, "exited", 3), failure(10, "exit-code")], Cause.CRASH, "exit status 3"),
    "signal": ([exited(10, "killed", 11), failure(10, "signal")], Cause.CRASH, "SIGSEGV"),
    "kill -9 from a shell": ([exited(10, "killed", 9), failure(10, "signal")], Cause.CRASH, "SIGKILL"),
    "watchdog": (
        [exited(10, "dumped", 6), failure(10, "watchdog")],
        Cause.CRASH,
        "watchdog",
    ),
    "ExecStartPre": (
        [exited(10, "exited", 1, kind="Control process", by="ExecStartPre"), failure(10, "exit-code")],
        Cause.CRASH,
        "exit status 1 of a control process",
    ),
    "a failed reload, then an exit": (
        [exited(10, "exited", 1, kind="Control process", by="ExecReload"), success(50)],
        Cause.EXIT,
        "with success",
    ),
    "exit": ([success(10)], Cause.EXIT, "with success"),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_run_has_one_end_and_the_cause_that_its_journal_shows(name):
    lines, cause, detail = SINGLE[name]
    ending = only([started(0), *lines])
    assert (ending.unit, ending.invocation_id, ending.ended) == (UNIT, ONE, True)
    assert ending.cause is cause
    assert detail in ending.detail


def test_the_time_is_that_of_the_end_and_the_evidence_is_in_its_order():
    ending = only([started(0), OOM_KILLED])
    assert ending.at == EPOCH + 10.3
    assert ending.evidence == (
        oom_line(),
        killed_line(),
        f"{UNIT}: A process of this unit has been killed by the OOM killer.",
        f"{UNIT}: Main process exited, code=killed, status=9/X",
        f"{UNIT}: Failed with result 'oom-kill'.",
    )


# --- what unitmem did --------------------------------------------------------------------------

STOP = [stopping(10.1), success(12), stopped(12)]
KILLED = [exited(10.2, "killed", 9), failure(10.2, "signal")]
OWN = {
    "stop": ([decision(10, "stop"), STOP, outcome(12.4, "stop", "verified")], Cause.UNITMEM),
    "stop, and unitmem died": ([decision(10, "stop"), STOP], Cause.UNITMEM),
    "stop, which is logged once it has begun": (
        [
            stopping(10.2),
            decision(10.4, "stop", UNITMEM_DECIDED_USEC=str(int((UPTIME + 10) * 1e6))),
            success(12),
        ],
        Cause.UNITMEM,
    ),
    "stop, which is logged after a restart of unitmem": (
        [
            STOP,
            decision(16, "stop", UNITMEM_DECIDED_USEC=str(int((UPTIME + 10) * 1e6))),
            outcome(16, "stop", "verified"),
        ],
        Cause.UNITMEM,
    ),
    "crash before a stop, which is logged after a restart of unitmem": (
        [
            exited(10.1, "dumped", 11),
            failure(10.2, "core-dump"),
            decision(16, "stop", UNITMEM_DECIDED_USEC=str(int((UPTIME + 10) * 1e6))),
            outcome(16, "stop", "failed"),
        ],
        Cause.CRASH,
    ),
    "restart": ([decision(10, "restart"), STOP, outcome(13, "restart", "verified")], Cause.UNITMEM),
    "stop, told as failed while it hung": (
        [decision(10, "stop"), stopping(10.1), outcome(40, "stop", "failed"), success(60)],
        Cause.UNITMEM,
    ),
    "stop, else kill": (
        [
            decision(10, "stop"),
            stopping(10.1),
            sent(40, "SIGKILL"),
            exited(40, "killed", 9),
            failure(40, "signal"),
        ],
        Cause.UNITMEM,
    ),
    "kill": ([decision(10, "kill"), KILLED, outcome(10.5, "kill", "verified")], Cause.UNITMEM),
    "SIGKILL to all": (
        [decision(10, "SIGKILL"), sent(10.1, "SIGKILL"), KILLED, outcome(10.5, "SIGKILL", "verified")],
        Cause.UNITMEM,
    ),
    "SIGTERM, told before systemd has told": (
        [decision(10, "SIGTERM"), outcome(11, "SIGTERM", "verified"), success(11.2)],
        Cause.UNITMEM,
    ),
    "SIGUSR1, which killed it": (
        [
            decision(10, "SIGUSR1"),
            outcome(10, "SIGUSR1", "verified"),
            exited(10.1, "killed", 10),
            failure(10.1, "signal"),
        ],
        Cause.UNITMEM,
    ),
    "SIGUSR1, which it handled": (
        [decision(10, "SIGUSR1"), outcome(10, "SIGUSR1", "verified"), success(11)],
        Cause.EXIT,
    ),
    "observed": ([decision(10, "stop", "observed"), STOP], Cause.REQUEST),
    "refused": ([decision(10, "stop", "refused"), STOP], Cause.REQUEST),
    "failed before": ([decision(9, "stop"), outcome(9.1, "stop", "failed"), STOP], Cause.REQUEST),
    "too late": ([decision(10, "stop"), STOP, outcome(12.4, "stop", "gone")], Cause.REQUEST),
    "of root's own manager": (
        [decision(10, "stop", OBJECT_SYSTEMD_UNIT=None, OBJECT_SYSTEMD_USER_UNIT=UNIT), STOP],
        Cause.REQUEST,
    ),
    "logged": ([decision(10, "log", "verified"), STOP], Cause.REQUEST),
    "long before": ([decision(10, "stop"), stopping(1000), success(1001)], Cause.REQUEST),
    "after": ([stopping(9), decision(10, "stop"), success(12)], Cause.REQUEST),
    "decided after somebody's stop began": (
        [
            stopping(9.8),
            decision(10.4, "stop", UNITMEM_DECIDED_USEC=str(int((UPTIME + 10) * 1e6))),
            success(12),
        ],
        Cause.REQUEST,
    ),
    "of another run": ([decision(10, "stop", run=TWO), STOP], Cause.REQUEST),
    "of another unit": ([decision(10, "stop", unit="other.service"), STOP], Cause.REQUEST),
    "crashed before the stop": (
        [decision(10, "stop"), exited(10.1, "dumped", 11), failure(10.2, "core-dump")],
        Cause.CRASH,
    ),
    "OOM-killed right after": ([decision(9.9, "stop"), OOM_KILLED], Cause.OOM_KILLER),
    "OOM-killed while stopping": ([decision(9.8, "stop"), stopping(9.9), OOM_KILLED], Cause.OOM_KILLER),
    "OOM-killed right before": (
        [OOM_KILLED[0], decision(10.05, "stop"), OOM_KILLED[1:], outcome(10.4, "stop", "verified")],
        Cause.OOM_KILLER,
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_only_what_unitmem_did_to_that_very_run_is_its_doing(name):
    lines, cause = OWN[name]
    journal = [started(0), lines]
    (ending,) = [
        ending for ending in attribute(flat(journal)) if ending.unit == UNIT and ending.invocation_id == ONE
    ]
    assert ending.cause is cause


def test_an_own_deed_is_told_with_its_decision_and_its_outcome():
    ending = only([started(0), decision(10, "stop"), STOP, outcome(12.4, "stop", "verified")])
    assert ending.detail == "stop"
    assert ending.evidence == (
        f"{UNIT}: anon 300M > 256M: stop",
        "Stopping The web...",
        f"{UNIT}: Deactivated successfully.",
        f"{UNIT}: verified",
    )


def test_the_unit_that_journald_adds_for_a_process_does_not_hide_whose_the_deed_is():
    line = decision(10, "SIGKILL", OBJECT_SYSTEMD_UNIT=[UNIT, "other.service"])
    assert causes([started(0), line, KILLED]) == [(Cause.UNITMEM, True)]


# --- signals, whose sender no entry names -------------------------------------------------------


def guard(t, message, service="earlyoom.service"):
    return entry(t, message, _SYSTEMD_UNIT=service, _UID="0", _PID="500", _TRANSPORT="stdout")


def earlyoom(t, signal="SIGTERM", name="web"):
    return guard(t, f'sending {signal} to process 77 uid 33 "{name}": badness 1264, VmRSS 239 MiB')


def nohang(t, signal="SIGTERM", cgroup=f"/system.slice/{UNIT}"):
    """What nohang 0.2 prints, a line each."""
    lines = [
        ">>=== STARTING implement_corrective_action() ====>>",
        "Victim status (found in 12ms):",
        "  PID:       77, name: web, state: S (sleeping), EUID: 33, SID: 1 (systemd), lifetime: 5min 10s",
        "  badness:   780, oom_score:  780, oom_score_adj:  0",
        "  Vm, MiB:   Size: 500, RSS: 239 (Anon: 230, File: 9, Shmem: 0), Swap: 0",
        "  cgroup_v1: ",
        f"  cgroup_v2: {cgroup}",
        "Implementing a corrective action:",
        f"  Sending {signal} to the victim",
        "OK; total response time: 14ms",
    ]
    return [guard(t, line, "nohang.service") for line in lines]


UNNAMED = "; the journal doesn't say whether it was sent a signal"
SIGNALLED = {
    "kill -TERM from a shell": ([success(10)], f"with success{UNNAMED}"),
    "kill -KILL from a shell": ([exited(10, "killed", 9), failure(10, "signal")], "SIGKILL; the journal doesn't say who sent it"),
    "a status as after a signal": ([exited(10, "exited", 143), failure(10, "exit-code")], f"exit status 143{UNNAMED}"),
    "a fault": ([exited(10, "dumped", 11), failure(10, "core-dump")], "SIGSEGV, core dumped"),
    "a status": ([exited(10, "exited", 3), failure(10, "exit-code")], "exit status 3"),
    "earlyoom": (
        [earlyoom(9.5), success(10)],
        "with success, likely by earlyoom, which sent SIGTERM to pid 77 (web) 500ms before",
    ),
    "earlyoom 1.8": (
        [
            guard(
                10,
                'sending SIGTERM to process 77 uid 33 "web": oom_score 1264, oom_score_adj 0, VmRSS 239 MiB, '
                'cmdline "web --serve"',
            ),
            success(10),
        ],
        "with success, likely by earlyoom, which sent SIGTERM to pid 77 (web) right before",
    ),
    "earlyoom 1.3": (
        [guard(9, 'sending SIGTERM to process 77 "web": badness 209, VmRSS 2891 MiB'), success(10)],
        "with success, likely by earlyoom, which sent SIGTERM to pid 77 (web) 1s before",
    ),
    "earlyoom's SIGKILL": (
        [earlyoom(9, "SIGKILL"), exited(10, "killed", 9), failure(10, "signal")],
        "SIGKILL, likely by earlyoom, which sent SIGKILL to pid 77 (web) 1s before",
    ),
    "earlyoom's lines come last": (
        [success(10), earlyoom(10.2)],
        "with success, likely by earlyoom, which sent SIGTERM to pid 77 (web) right before",
    ),
    "a dry run of earlyoom": (
        [earlyoom(9), guard(9, "dryrun, not actually sending any signal"), success(10)],
        f"with success{UNNAMED}",
    ),
    "nohang": (
        [nohang(9), success(10)],
        "with success, likely by nohang, which sent SIGTERM to pid 77 (web) 1s before",
    ),
    "nohang that tells nothing of its victim": (
        [guard(9, "  Sending SIGKILL to the victim", "nohang-desktop.service"), exited(10, "killed", 9), failure(10, "signal")],
        "SIGKILL, likely by nohang, which sent SIGKILL 1s before",
    ),
    "nohang, in another unit": ([nohang(9, cgroup="/system.slice/db.service"), success(10)], f"with success{UNNAMED}"),
    "long before": ([earlyoom(9), success(30)], f"with success{UNNAMED}"),
    "in another boot": ([earlyoom(9) | {"_BOOT_ID": "b0"}, success(10)], f"with success{UNNAMED}"),
    "what it didn't end by": (
        [earlyoom(9), exited(10, "dumped", 11), failure(10, "core-dump")],
        "SIGSEGV, core dumped",
    ),
    "stopped by hand meanwhile": (
        [stopping(9.8), earlyoom(9.9), success(10)],
        "a stop job (systemctl stop, a dependency or shutdown)",
    ),
    "somebody who calls himself earlyoom": (
        [earlyoom(9) | {"_SYSTEMD_UNIT": "session-1.scope", "SYSLOG_IDENTIFIER": "earlyoom"}, success(10)],
        f"with success{UNNAMED}",
    ),
    "a user's own earlyoom.service": (
        [earlyoom(9) | {"_SYSTEMD_UNIT": "user@1000.service", "_SYSTEMD_USER_UNIT": "earlyoom.service"}, success(10)],
        f"with success{UNNAMED}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNALLED)
def test_a_signal_has_the_sender_that_is_known_and_no_other(name):
    lines, detail = SIGNALLED[name]
    assert only([started(0), *lines]).detail == detail


def test_another_guards_line_is_evidence():
    ending = only([started(0), earlyoom(9), success(10)])
    assert (ending.cause, ending.evidence) == (
        Cause.EXIT,
        (earlyoom(9)["MESSAGE"], f"{UNIT}: Deactivated successfully."),
    )


def test_what_is_no_process_is_sent_no_signal():
    mount = "srv.mount"
    assert only([started(0, unit=mount), success(10, unit=mount)]).detail == "with success"


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (
            [
                "web invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0"
            ],
            False,
        ),
        (["sysrq: Manual OOM execution"], True),
        (["sysrq: SysRq : Manual OOM execution"], True),
        (["kworker/0:1 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0"], True),
        (
            [
                "sysrq: Manual OOM execution",
                "web invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=2, oom_score_adj=0",
            ],
            False,
        ),
    ],
)
def test_the_machine_was_out_of_memory_only_if_the_kernel_said_so(before, reason):
    lines = [kernel(9.9, line) for line in before]
    victims: set[int] = set()
    journal = flat(
        [started(0), lines, oom(10, constraint="NONE"), exited(10, "killed", 9), failure(10, "signal")]
    )
    ending = only([line for line in journal if is_about(line, UNIT, None, victims)])
    assert ending.cause is Cause.OOM_KILLER
    assert ending.detail.startswith(
        "somebody ran the OOM killer by SysRq" if reason else "the whole machine was"
    )


@pytest.mark.parametrize(
    ("end", "cause", "detail"),
    [
        ([decision(10, "restart"), STOP], Cause.UNITMEM, "restart"),
        ([exited(10, "exited", 3), failure(10, "exit-code")], Cause.CRASH, "exit status 3"),
    ],
)
def test_a_start_that_systemd_refused_afterwards_is_told_with_the_end(end, cause, detail):
    ending = only([started(0), *end, failure(13, "start-limit-hit")])
    assert (ending.cause, ending.at) == (cause, only([started(0), *end]).at)
    assert ending.detail == (
        f"{detail}; systemd did not start it again, as its start limit was hit (StartLimitBurst=)"
    )
    assert ending.evidence[-1] == f"{UNIT}: Failed with result 'start-limit-hit'."


# --- kills that a run survives -----------------------------------------------------------------


def test_a_kill_under_oompolicy_continue_is_no_end():
    ending = only([started(0), oom(10, pid=78), noticed(10.1)])
    assert (ending.cause, ending.ended, ending.at) == (Cause.OOM_KILLER, False, EPOCH + 10)
    assert ending.detail.startswith("its own limit (memory.max) was reached; killed pid 78 (web)")


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        ([success(500)], Cause.EXIT),
        ([stopping(10.5), success(11)], Cause.REQUEST),
        ([exited(500, "dumped", 11), failure(500, "core-dump")], Cause.CRASH),
        ([exited(11, "dumped", 11), failure(11, "core-dump")], Cause.CRASH),
        ([exited(500, "killed", 9), failure(500, "signal")], Cause.CRASH),
    ],
)
def test_a_kill_that_was_survived_is_told_beside_the_end(lines, end):
    journal = [started(0), oom(10, pid=78), noticed(10), *lines]
    assert causes(journal) == [(Cause.OOM_KILLER, False), (end, True)]


def test_a_stop_of_what_systemd_oomd_has_left_is_somebodys_request():
    journal = [started(0), oomd(10, f"/system.slice/{UNIT}/pool"), stopping(10.5), success(11)]
    assert causes(journal) == [(Cause.SYSTEMD_OOMD, False), (Cause.REQUEST, True)]


def test_each_of_several_kills_is_told_once_however_often_systemd_notices():
    journal = [
        started(0),
        oom(10, pid=71),
        oom(10, pid=72),
        noticed(10),
        noticed(10),
        noticed(11),
        oom(300, pid=73),
        noticed(300),
    ]
    endings = attribute(flat(journal))
    assert [(ending.cause, ending.ended) for ending in endings] == [(Cause.OOM_KILLER, False)] * 3
    assert [word for ending in endings for word in ending.detail.split() if word.isdigit()] == [
        "71",
        "72",
        "73",
    ]


def test_the_kills_of_one_storm_are_one_end():
    storm = [oom(10, pid=71), oom(10, pid=72), noticed(10), exited(10, "killed", 9), failure(10, "oom-kill")]
    assert causes([started(0), storm[0], storm[1], *storm[2:]]) == [(Cause.OOM_KILLER, True)]


# --- other kinds of units ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "lines", "cause"),
    [
        (
            "run-1.scope",
            [oom(10, cgroup="/system.slice/run-1.scope"), success(10, unit="run-1.scope")],
            Cause.OOM_KILLER,
        ),
        (
            "run-1.scope",
            [oomd_noticed(10, unit="run-1.scope"), success(10, unit="run-1.scope")],
            Cause.SYSTEMD_OOMD,
        ),
        ("run-1.scope", [success(10, unit="run-1.scope")], Cause.EXIT),
        ("run-1.scope", [stopping(10, unit="run-1.scope"), success(10, unit="run-1.scope")], Cause.REQUEST),
        ("x.slice", [stopped(10, unit="x.slice")], Cause.REQUEST),
    ],
)
def test_scopes_and_slices_end_as_well(unit, lines, cause):
    ending = only([started(0, unit=unit), *lines])
    assert (ending.unit, ending.cause, ending.ended) == (unit, cause, True)


def test_a_user_managers_units_are_told_apart_from_the_systems():
    path = f"/user.slice/user-1000.slice/user@1000.service/app.slice/{UNIT}"

    def as_user(line):
        renamed = {"UNIT": "USER_UNIT", "INVOCATION_ID": "USER_INVOCATION_ID"}
        own = {"_PID": "1500", "_UID": "1000", "_SYSTEMD_USER_UNIT": "init.scope"}
        return {renamed.get(name, name): value for name, value in line.items()} | own

    users = [as_user(line) for line in [started(0), noticed(10), failure(11, "oom-kill")]]
    journal = [users[0], oom(10, cgroup=path), *users[1:], started(20, TWO), success(30, TWO)]
    assert causes(journal, uid=1000) == [(Cause.OOM_KILLER, True)]
    assert causes(journal, uid=1001) == []
    of_system = attribute(flat(journal))
    assert [(e.unit, e.cause, e.ended) for e in of_system] == [
        ("user@1000.service", Cause.OOM_KILLER, False),
        (UNIT, Cause.EXIT, True),
    ]


# --- several runs, several units ---------------------------------------------------------------


@pytest.mark.parametrize("release", [252, 257])
def test_each_run_of_a_restart_loop_has_its_own_end(release):
    """252 says Stopped as it restarts a unit by itself, which no one has asked for; 257 doesn't."""

    def loop(t, run, *end):
        return [
            started(t, run),
            *end,
            scheduled(t + 5, run),
            *([stopped(t + 5, run)] if release == 252 else []),
        ]

    journal = [
        loop(0, ONE, oom(4), noticed(4, ONE), exited(4, "killed", 9, ONE), failure(4, "oom-kill", ONE)),
        loop(10, TWO, exited(14, "exited", 1, TWO), failure(14, "exit-code", TWO)),
        loop(20, THREE, exited(24, "dumped", 6, THREE), failure(24, "core-dump", THREE)),
        # the limit of starts is hit: systemd tells of a failure once more, of the same run
        [failure(25, "core-dump", THREE)],
    ]
    endings = attribute(flat(journal))
    assert [(e.invocation_id, e.cause, e.at - EPOCH) for e in endings] == [
        (ONE, Cause.OOM_KILLER, 4),
        (TWO, Cause.CRASH, 14),
        (THREE, Cause.CRASH, 24),
    ]


def test_a_journal_that_begins_between_end_and_restart_has_no_end():
    assert causes([scheduled(5), stopped(5), started(5.1, TWO)]) == []


@pytest.mark.parametrize(
    ("end", "t"),
    [
        ([success(10)], 11),  # that run was not killed
        ([exited(10, "killed", 9), failure(10, "oom-kill")], 100),  # too late to be about that one
    ],
)
def test_a_kill_after_an_end_is_of_the_next_run(end, t):
    journal = [started(0), *end, oom(t), started(t + 0.1, TWO)]
    (kill,) = [ending for ending in attribute(flat(journal)) if not ending.ended]
    assert (kill.invocation_id, kill.cause) == (TWO, Cause.OOM_KILLER)


def test_a_start_that_was_refused_is_no_end():
    assert causes([failure(1, "start-limit-hit"), failure(2, "exec-condition")]) == []


def test_units_whose_lines_are_interleaved_keep_their_own():
    other = "db.service"
    journal = [
        started(0),
        started(0, TWO, other),
        kernel(10, oom_line()),
        kernel(10, oom_line(cgroup=f"/system.slice/{other}", pid=88)),
        kernel(10, killed_line(88)),
        kernel(10, killed_line(77)),
        noticed(10, TWO, other),
        stopping(10.5, TWO, other),
        noticed(10),
        exited(11, "killed", 9),
        success(11, TWO, other),
        failure(12, "oom-kill"),
    ]
    assert [(e.unit, e.cause, e.ended) for e in attribute(journal)] == [
        (other, Cause.OOM_KILLER, False),
        (other, Cause.REQUEST, True),
        (UNIT, Cause.OOM_KILLER, True),
    ]


@pytest.mark.parametrize(
    ("boot", "detail"),
    [
        ("b1", "a new run started; the journal doesn't say how this one ended"),
        ("b2", "the machine went down"),
    ],
)
def test_an_end_that_nothing_tells_of_is_unknown(boot, detail):
    ending = only([started(0), started(100, TWO, boot=boot)])
    assert (ending.invocation_id, ending.cause, ending.detail) == (ONE, Cause.UNKNOWN, detail)


def test_a_service_that_only_stopped_may_have_crashed_before():
    """252 says Stopped as it restarts by itself, too: without a result that is no sign of a request."""
    assert causes([started(0), stopped(10), started(11, TWO)]) == [(Cause.UNKNOWN, True)]


def test_an_end_that_is_told_late_is_known():
    journal = [started(0), started(10, TWO), exited(10.1, "exited", 1), failure(10.1, "exit-code")]
    assert causes(journal) == [(Cause.CRASH, True)]


def test_a_run_that_goes_on_has_no_end():
    assert causes([started(0), decision(5, "stop"), exited(6, "exited", 1, kind="C", by="ExecReload")]) == []


# --- who may say what --------------------------------------------------------------------------


def forged(line, **fields):
    return (
        line
        | {"_PID": "4711", "_UID": "1000", "_TRANSPORT": "journal", "_SYSTEMD_UNIT": "evil.service"}
        | fields
    )


FORGED = {
    "PID 1's failure": forged(failure(5, "oom-kill")),
    "PID 1's stop": forged(stopping(5)),
    "root's, which isn't PID 1": forged(stopping(5), _UID="0"),
    "PID 1's notice": forged(noticed(5)),
    "the kernel's line": forged(kernel(5, oom_line())),
    "the kernel's line by way of /dev/kmsg": kernel(5, oom_line(), SYSLOG_FACILITY="1"),
    "the kernel's line from a forged journal field": forged(kernel(5, oom_line()), _TRANSPORT="stdout"),
    "oomd's": forged(oomd(5)),
    "oomd's notice": forged(oomd_noticed(5)),
    "earlyoom's": forged(entry(5, 'sending SIGTERM to process 77 uid 0 "web": badness 9, VmRSS 9 MiB')),
    "unitmem's": forged(decision(5, "SIGTERM")),
    "a client's request": forged(sent(5, "SIGKILL")),
    "a description like a request": pid1(
        5, f"Started {UNIT}: Sent signal SIGKILL to main process 77 (web) on client request.", STARTED
    ),
    "two units at once": stopping(5) | {"UNIT": [UNIT, "other.service"]},
    "a container's unit of that name": kernel(
        5, oom_line(cgroup=f"/machine.slice/c.scope/system.slice/{UNIT}")
    ),
    "a cgroup with a path in its name": kernel(
        5, oom_line(cgroup=f"/u.slice/c.service/x,task_memcg=/system.slice/{UNIT}")
    ),
    "a process with a path in its name": kernel(
        5, oom_line(cgroup="/evil.service", task=f",task_memcg=/{UNIT},task=a")
    ),
    "no time": {name: value for name, value in stopping(5).items() if name != "__REALTIME_TIMESTAMP"},
}


@pytest.mark.parametrize("name", FORGED)
def test_nobody_can_make_an_exit_look_like_something_else(name):
    (ending,) = [e for e in attribute([started(0), FORGED[name], success(5.1)]) if e.unit == UNIT]
    assert (ending.cause, ending.ended) == (Cause.EXIT, True)


def test_a_message_in_bytes_is_read_and_fit_for_a_terminal():
    line = kernel(10, "") | {"MESSAGE": list(oom_line(task="\x1b[31mw").encode())}
    ending = only([started(0), line])
    assert "pid 77 (\\x1b[31mw)" in ending.detail
    assert all(message.isprintable() for message in ending.evidence)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                sorted({name for line in flat([OOM_KILLED, STOP, decision(1, "stop")]) for name in line})
            ),
            st.none()
            | st.text()
            | st.just("1")
            | st.lists(st.integers() | st.text())
            | st.sampled_from(
                [STOPPING, FAILURE, PROCESS_EXIT, DECISION_MESSAGE_ID, oom_line(), killed_line()]
            ),
        )
    )
)
def test_no_journal_is_too_odd_to_be_read(lines):
    attribute(lines)


# --- parsers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "parsed"),
    [
        (oom_line(), OomLine("MEMCG", f"/system.slice/{UNIT}", f"/system.slice/{UNIT}", 77, "web")),
        (oom_line(constraint="NONE"), OomLine("NONE", None, f"/system.slice/{UNIT}", 77, "web")),
        (
            oom_line(task="a,b=c) pid=1"),
            OomLine("MEMCG", f"/system.slice/{UNIT}", f"/system.slice/{UNIT}", 77, "a,b=c) pid=1"),
        ),
        (oom_line(task="x,task=y"), None),
        (oom_line()[:-10], None),
        ("web invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0", None),
        ("", None),
    ],
)
def test_the_kernels_choice_is_read(message, parsed):
    assert parse_oom_kill(message) == parsed


@pytest.mark.parametrize(
    ("message", "parsed"),
    [
        (killed_line(), (77, 256 << 20)),
        (killed_line(machine=True), (77, 256 << 20)),
        (killed_line(name="a) (b) total-vm:1kB"), (77, 256 << 20)),
        ("Memory cgroup out of memory: Killed process 77 (web)", None),
        ("oom_reaper: reaped process 77 (web), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB", None),
    ],
)
def test_the_size_of_the_killed_is_read(message, parsed):
    assert parse_killed(message) == parsed


@pytest.mark.parametrize(
    ("message", "parsed"),
    [
        (
            "Killed /a/b.service due to memory used (10) / total (11) and swap used (9) / total (10) being > 90.00%",
            (
                "/a/b.service",
                "memory used (10) / total (11) and swap used (9) / total (10) being > 90.00%",
            ),
        ),
        (
            "Marked /b.service for killing due to memory pressure for /a.slice being 9.00% > 5.00% for > 2s",
            ("/b.service", "memory pressure for /a.slice being 9.00% > 5.00% for > 2s"),
        ),
        ("Memory pressure for /a.slice is 85.03% > 80.00% for > 2s with reclaim activity", None),
        ("Considered 19 cgroups for killing, top candidates were:", None),
    ],
)
def test_oomds_kill_is_read(message, parsed):
    assert parse_oomd_kill(message) == parsed


@pytest.mark.parametrize(
    ("path", "uid", "unit"),
    [
        ("/system.slice/a.service", None, "a.service"),
        ("/system.slice/system-a.slice/a@1.service/pool/x", None, "a@1.service"),
        ("/system.slice/_memory.service", None, "memory.service"),
        ("/machine.slice/c.scope/system.slice/a.service", None, "c.scope"),
        ("/init.scope", None, "init.scope"),
        ("/system.slice", None, "system.slice"),
        ("/kubepods/burstable/pod1", None, None),
        ("/", None, None),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", None, "user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", 1000, "a.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", 0, None),
        ("/user.slice/user-1000.slice/session-2.scope", 1000, None),
        ("/system.slice/c.service/user@1000.service/a.service", 1000, None),
    ],
)
def test_a_cgroup_belongs_to_the_first_unit_that_is_no_slice(path, uid, unit):
    assert unit_of_cgroup(path, uid) == unit


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("a", "a"),
        ([97, 98], "ab"),
        ([255], "\ufffd"),
        (["a", "a"], "a"),
        (["a", [97]], "a"),
        (["a", "b"], None),
        ([300], None),
        ([], None),
        ("", None),
        (None, None),
        (1, None),
    ],
)
def test_a_field_is_one_text_or_none(value, read):
    assert text({"F": value}, "F") == read


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "groups"),
    [
        (None, [{"UNIT=web.service", "_PID=1"}, "_UID=0"]),
        (1000, [{"USER_UNIT=web.service", "_UID=1000"}, "_UID=1000"]),
    ],
)
def test_journalctl_is_asked_for_those_who_may_tell_of_the_unit(uid, groups):
    arguments = command(UNIT, 12.5, uid)
    assert {"--output=json", "--no-pager", "--since=@12.500000"} < set(arguments)
    terms = " ".join(argument for argument in arguments[1:] if not argument.startswith("--")).split(" + ")
    manager, own, *others = [set(group.split()) for group in terms]
    assert (manager, groups[1] in own, "UNITMEM_UNIT=web.service" in own) == (groups[0], True, True)
    guards = {
        f"_SYSTEMD_UNIT={name}.service" for name in ("systemd-oomd", "earlyoom", "nohang", "nohang-desktop")
    }
    assert others == [guards, {"_TRANSPORT=kernel"}]


def test_of_the_kernel_and_oomd_only_what_is_about_the_unit_is_taken():
    other = "/system.slice/db.service"
    about = [kernel(1, oom_line()), kernel(1, killed_line()), oomd(2), stopping(3)]
    not_about = [
        kernel(1, "usb 1-1: new device"),
        kernel(1, killed_line(99)),
        kernel(1, oom_line(cgroup=other, pid=99)),
        kernel(1, killed_line(99)),
        oomd(2, other),
        kernel(2, oom_line(cgroup=other, pid=77)),
        kernel(2, killed_line(77)),
    ]
    victims: set[int] = set()
    taken = [line for line in [*about, *not_about] if is_about(line, UNIT, None, victims)]
    assert taken == about


@pytest.mark.parametrize(
    "line", [b"", b"-- No entries --\n", b'{"MESSAGE": "torn', b"[]\n", b'"a"', b"\xff\xfe"]
)
def test_a_line_that_is_no_entry_is_none(line):
    assert parse_entry(line) is None


@pytest.fixture
def journalctl(tmp_path, monkeypatch):
    """journalctl(stdout, stderr, status): what a program of that name in the path says."""

    def install(stdout=b"", stderr="", status=0):
        (tmp_path / "out").write_bytes(stdout)
        (tmp_path / "err").write_text(stderr)
        program = tmp_path / "journalctl"
        program.write_text(f"#!/bin/sh\ncat '{tmp_path}/out'; cat '{tmp_path}/err' >&2; exit {status}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    return install


def test_entries_are_read_and_what_is_none_is_skipped(journalctl):
    lines = flat([started(0), OOM_KILLED])
    torn = [json.dumps(line).encode() for line in lines]
    journalctl(b"\n".join([b"-- a hint --", *torn, b'{"MESSAGE": "to']))
    assert list(read_entries(UNIT, 0)) == lines


def children():
    """The processes that this one has started and not waited for; fixtures of other files may have some."""
    return {
        pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    }


@pytest.mark.parametrize("lines", [0, 100_000])
def test_a_reader_that_has_enough_leaves_no_program_behind(journalctl, lines):
    journalctl(b"".join(json.dumps(stopping(t)).encode() + b"\n" for t in range(2 + lines // 100)))
    before = children()
    entries = read_entries(UNIT, 0)
    assert next(entries)["MESSAGE"] == "Stopping The web..."
    assert children() > before
    entries.close()
    assert children() == before


HINT = (
    "Hint: You are currently not seeing messages from other users and the system.\n"
    "      Users in groups 'adm', 'systemd-journal' can see all messages.\n"
)
SOME = "Warning: some journal files were not opened due to insufficient permissions.\n"
NONE = "No journal files were opened due to insufficient permissions.\n"


@pytest.mark.parametrize(
    ("stderr", "status", "user", "error"),
    [
        ("", 0, False, None),
        ("Journal file x is truncated, ignoring file.\n", 0, False, None),
        (HINT, 0, False, "may not be read"),
        (SOME, 0, False, "may not be read"),
        (NONE, 1, False, "may not be read"),
        (HINT, 0, True, None),
        (SOME, 0, True, None),
        (NONE, 1, True, "may not be read"),
        ("Failed to open journal: oh\n", 1, False, "journalctl failed: Failed to open journal: oh"),
        ("", 3, False, "journalctl failed: it ended with status 3"),
    ],
)
def test_what_journalctl_complains_of_is_one_sentence(journalctl, stderr, status, user, error):
    journalctl(json.dumps(stopping(0)).encode(), stderr, status)
    if error is None:
        assert len(list(read_entries(UNIT, 0, user=user))) == 1
        return
    with pytest.raises(UnitmemError, match=error) as caught:
        list(read_entries(UNIT, 0, user=user))
    assert "\n" not in str(caught.value)


def test_a_machine_without_journalctl_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnitmemError, match="journalctl is not installed") as caught:
        list(read_entries(UNIT, 0))
    assert caught.value.hint is not None
