"""`ProcessGuard` on real processes: who is killed and who never is, what is left behind, and what is told."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from unitmem import GuardEnd, ProcessGuard
from unitmem.errors import UnsupportedSystemError
from unitmem.kernel.process_tree import ProcessTree

MIB = 1 << 20
EVER = 60.0
"""Seconds after which a test gives up; nothing is asserted about how long a thing takes."""
PLENTY = 1 << 40

# allocates as many MiB as each line says, and then says so
HOG = """
import sys
held = []
for line in sys.stdin:
    held.append(bytearray(b"x") * (int(line) << 20))
    print("done", flush=True)
"""
# the same once its main thread has ended
HEADLESS = f"""
import ctypes, threading
threading.Thread(target=exec, args=({HOG!r}, {{}})).start()
ctypes.CDLL(None).pthread_exit(None)
"""
GREEDY = "a=(); while :; do a+=(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx); done"


class Hog(subprocess.Popen):
    """A process whose memory grows when told, and that ends with status 3 otherwise."""

    def __init__(self, program=HOG):
        program += "\nsys.exit(3)\n" if program == HOG else ""
        super().__init__(
            [sys.executable, "-SEc", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, mebibytes):
        """Have it grow, and don't wait for it."""
        self.stdin.write(f"{mebibytes}\n")
        self.stdin.flush()

    def take(self, mebibytes):
        self.ask(mebibytes)
        assert self.stdout.readline() == "done\n"

    def ends(self):
        """Whether nobody has ended it: it comes to its own end."""
        self.stdin.close()
        return self.wait() == 3


@pytest.fixture
def hog():
    with Hog() as process:
        process.take(0)
        yield process
        process.kill()


@pytest.fixture
def log():
    """A logger of its own, with what it was told in `told`."""
    logger = logging.Logger("test", logging.DEBUG)  # noqa: LOG001 - none that pytest hears of
    logger.told = []
    handler = logging.Handler()
    handler.emit = lambda record: logger.told.append((record.levelname, record.getMessage()))
    logger.addHandler(handler)
    return logger


@pytest.fixture(scope="module", autouse=True)
def _collected():
    """What tests of other files have left is no matter of the collections in here."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No thread and no descriptor, in every test."""
    gc.collect()  # of what tests before have left
    before = descriptors()
    yield
    gc.collect()
    assert [thread for thread in threading.enumerate() if thread.name.startswith("guard of")] == []
    assert descriptors() == before


def descriptors():
    """Those that guards may have opened."""
    listed = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one of the listing itself
            listed[name] = str(Path(f"/proc/self/fd/{name}").readlink())
    return {name: target for name, target in listed.items() if "/proc/" in target or "anon_inode" in target}


def until(condition):
    deadline = time.monotonic() + EVER
    while not (answer := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return answer


# --- killed ------------------------------------------------------------------------------------


def test_a_script_that_grows_is_killed_soon(log):
    with subprocess.Popen(["bash", "-c", GREEDY]) as process:
        guard = ProcessGuard(process, interval=0.001, log=log)
        guard.limit(MIB)
        assert guard.killed.wait(EVER)
        assert guard.outcome.kind is GuardEnd.KILLED
        assert guard.pss > MIB
        assert process.wait() == -signal.SIGKILL
        guard.cancel_wait()
    assert [level for level, _ in log.told] == ["WARNING", "WARNING"]
    assert "PSS" in str(guard.outcome)


def test_what_stays_below_is_left_alone_until_it_does_not(hog):
    with ProcessGuard(hog.pid, interval=0.001) as guard:
        guard.limit(64 * MIB)
        hog.take(16)
        assert guard.wait(0.1) is None
        hog.ask(64)
        assert guard.wait(EVER).kind is GuardEnd.KILLED
    assert guard.pss > 64 * MIB
    assert guard.killed.is_set()
    assert hog.wait() == -signal.SIGKILL


def test_the_outcome_is_known_before_killed_is_set(hog):
    guard = ProcessGuard(hog)
    seen = []

    class Event(threading.Event):
        def set(self):
            seen.append((guard.outcome.kind, Path(f"/proc/{hog.pid}/stat").read_text().split(") ")[1][0]))
            super().set()

    guard.killed = Event()
    guard.limit(1)
    guard.wait(EVER)
    assert seen == [(GuardEnd.KILLED, "Z")]


def test_the_first_look_is_at_once_and_so_is_the_one_after_a_new_limit(hog):
    with ProcessGuard(hog, interval=3600) as guard:
        guard.limit(PLENTY)
        first = until(lambda: guard.reading)
        assert first.pss > 0
        guard.limit(MIB)
        assert guard.wait(EVER).kind is GuardEnd.KILLED


def test_a_limit_that_is_raised_at_the_last_moment_counts(hog, monkeypatch):
    with ProcessGuard(hog, interval=0.001) as guard:

        def measure_pss(self, processes, measure_pss=ProcessTree.measure_pss):
            measured = measure_pss(self, processes)
            guard.limit(PLENTY)
            return measured

        monkeypatch.setattr(ProcessTree, "measure_pss", measure_pss)
        guard.limit(1)
        until(lambda: guard.reading and guard.reading.pss is None)  # a look after that
    assert guard.outcome.kind is GuardEnd.CANCELLED
    assert hog.ends()


def test_far_from_the_limit_only_rss_is_read(hog):
    with ProcessGuard(hog, interval=0.001) as guard:
        guard.limit(PLENTY)
        first = until(lambda: guard.reading and guard.pss)
        hog.take(32)
        later = until(lambda: guard.reading if guard.reading.rss > 32 * MIB else None)
        assert later.pss is None
        assert guard.pss == first
        guard.limit(later.rss)  # which PSS is less than: it decides, and all is well
        assert until(lambda: guard.reading.pss) > 32 * MIB
        assert guard.outcome is None


def test_statistics_read_pss_in_any_case(hog, log):
    with ProcessGuard(hog, interval=0.001, stats_every=0.01, log=log, name="worker") as guard:
        guard.limit(PLENTY)
        first = until(lambda: guard.pss)
        hog.take(32)
        until(lambda: guard.pss > first + 32 * MIB)
        guard.cancel_wait()
    level, text = log.told[0]
    assert level == "INFO"
    assert text.startswith(f"pid {hog.pid} (worker): PSS ")
    assert "looks" in text


def test_a_process_without_its_main_thread_is_no_zombie():
    with Hog(HEADLESS) as process:
        process.take(0)
        until(lambda: " Z " in Path(f"/proc/{process.pid}/stat").read_text())
        with ProcessGuard(process, interval=0.001) as guard:
            guard.limit(64 * MIB)
            assert guard.wait(0.05) is None
            process.ask(64)
            assert guard.wait(EVER).kind is GuardEnd.KILLED
        assert guard.pss > 64 * MIB
        assert process.wait() == -signal.SIGKILL


# --- grace -------------------------------------------------------------------------------------

POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))" + HOG
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + HOG


@pytest.mark.parametrize(
    ("program", "grace", "status", "how"),
    [(POLITE, EVER, 7, "SIGTERM"), (STUBBORN, 0.02, -signal.SIGKILL, "SIGKILL, 20ms after SIGTERM")],
)
def test_grace_is_sigterm_first_and_sigkill_after_it(program, grace, status, how, log):
    with Hog(program) as process:
        process.take(0)
        guard = ProcessGuard(process, log=log)
        guard.limit(MIB, grace)
        assert guard.killed.wait(EVER)
        guard.cancel_wait()
        assert process.wait() == status
    assert str(guard.outcome).endswith(f"> 1.0M; by {how}")
    assert "SIGTERM sent, SIGKILL follows in" in log.told[0][1]


def test_without_grace_there_is_no_sigterm():
    with Hog(POLITE) as process:
        process.take(0)
        with ProcessGuard(process) as guard:
            guard.limit(MIB)
            guard.wait(EVER)
        assert process.wait() == -signal.SIGKILL


def test_cancelled_within_the_grace_means_no_sigkill():
    with Hog(STUBBORN + "\nsys.exit(3)\n") as process:
        process.take(0)
        guard = ProcessGuard(process)
        guard.limit(MIB, grace=3600)
        until(lambda: guard.sent)
        guard.cancel_wait()
        assert guard.outcome.kind is GuardEnd.CANCELLED
        assert "SIGTERM was sent" in guard.outcome.reason
        assert process.ends()


# --- ended otherwise ---------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_a_process_that_exits_ends_the_guard_and_its_status_stays(hog, whole):
    guard = ProcessGuard(hog, interval=3600, tree=whole)
    guard.limit(PLENTY)
    hog.stdin.close()
    outcome = guard.wait(EVER)
    assert outcome.kind is GuardEnd.EXITED
    assert outcome.reason.startswith("it ended")
    assert not guard.killed.is_set()
    assert hog.wait() == 3
    guard.limit(1)
    assert guard.outcome is outcome


@pytest.mark.parametrize("whole", [False, True])
def test_a_zombie_has_exited(hog, whole):
    hog.stdin.close()
    os.waitid(os.P_PID, hog.pid, os.WEXITED | os.WNOWAIT)
    guard = ProcessGuard(hog.pid, tree=whole)
    assert guard.outcome is None
    guard.limit(1)
    assert str(guard.wait(EVER)) == "exited: it ended, and is a zombie until its parent waits for it"
    assert hog.wait() == 3


def test_one_that_becomes_a_zombie_over_the_limit_is_not_said_to_be_killed(hog, monkeypatch):
    """It ends right after it was measured."""

    def measure_pss(self, processes, measure_pss=ProcessTree.measure_pss):
        measured = measure_pss(self, processes)
        hog.stdin.close()
        os.waitid(os.P_PID, hog.pid, os.WEXITED | os.WNOWAIT)
        return measured

    monkeypatch.setattr(ProcessTree, "measure_pss", measure_pss)
    guard = ProcessGuard(hog)
    guard.limit(1)
    assert guard.wait(EVER).kind is GuardEnd.EXITED
    assert hog.wait() == 3


def test_a_child_that_was_waited_for_is_an_outcome_and_no_pid(hog):
    hog.stdin.close()
    hog.wait()
    guard = ProcessGuard(hog)
    guard.limit(1)
    assert str(guard.wait()) == "exited: it had ended before"
    assert guard.pss is None


def test_a_child_that_was_waited_for_elsewhere_is_never_looked_for_by_its_pid(hog):
    """Popen doesn't know, and its pid may be anyone's."""
    hog.stdin.close()
    os.waitpid(hog.pid, 0)
    assert hog.returncode is None
    guard = ProcessGuard(hog)
    assert guard.outcome.kind is GuardEnd.EXITED
    # what is not a child of ours is somebody else, whoever that is
    stranger = subprocess.Popen.__new__(subprocess.Popen)
    stranger.pid, stranger.returncode, stranger._child_created = os.getppid(), None, False
    assert str(ProcessGuard(stranger).outcome) == (
        "exited: it had ended before, and its pid now belongs to another process"
    )


def test_an_asyncio_process_will_do():
    async def run():
        process = await asyncio.create_subprocess_exec("bash", "-c", GREEDY)
        with ProcessGuard(process, interval=0.001) as guard:
            guard.limit(MIB)
            return await process.wait(), guard

    status, guard = asyncio.run(run())
    assert status == -signal.SIGKILL
    assert guard.outcome.kind is GuardEnd.KILLED


def test_waiting_for_the_process_within_the_guard_tells_who_ended_it(hog):
    """Its parent may know before the guard's thread does."""
    with ProcessGuard(hog) as guard:
        guard.limit(1)
        assert hog.wait() == -signal.SIGKILL
    assert guard.outcome.kind is GuardEnd.KILLED
    assert guard.killed.is_set()
    with Hog() as other, ProcessGuard(other) as guard:
        guard.limit(PLENTY)
        other.kill()
        other.wait()
    assert guard.outcome.kind is GuardEnd.EXITED


def test_a_process_that_may_not_be_read_fails_the_guard_at_once(hog, log):
    if os.geteuid() != 0:
        pytest.skip("it takes root to become someone who may not")
    os.seteuid(65534)
    try:
        guard = ProcessGuard(hog, log=log)
        guard.limit(PLENTY)
        outcome = guard.wait(EVER)
    finally:
        os.seteuid(0)
    assert outcome.kind is GuardEnd.FAILED
    assert outcome.reason.startswith("its PSS can't be read: permission denied")
    assert [level for level, _ in log.told] == ["ERROR"]
    assert not guard.killed.is_set()
    assert hog.ends()


def test_what_should_not_happen_ends_the_guard_with_a_word(hog, log, monkeypatch):
    monkeypatch.setattr(ProcessTree, "look", lambda self: 1 / 0)
    with ProcessGuard(hog, log=log) as guard:
        guard.limit(1)
        assert str(guard.wait(EVER)) == "failed: unexpected ZeroDivisionError: division by zero"
    assert [level for level, _ in log.told] == ["ERROR"]
    assert hog.ends()


# --- kills that fail ---------------------------------------------------------------------------


def test_a_kill_that_fails_is_told_and_tried_again(hog, log, monkeypatch):
    refusals = []

    def refuse(*arguments, send=signal.pidfd_send_signal):
        if len(refusals) < 3:
            refusals.append(arguments)
            raise PermissionError(1, "Operation not permitted")
        send(*arguments)

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with ProcessGuard(hog, interval=0.001, log=log) as guard:
        guard.limit(1)
        assert guard.wait(EVER).kind is GuardEnd.KILLED
    assert hog.wait() == -signal.SIGKILL
    assert len(refusals) == 3
    (level, text), *rest = log.told
    assert level == "ERROR"
    label = text.partition(": ")[0]
    assert text.endswith(f"but SIGKILL could not be sent to {label}: operation not permitted; trying again")
    assert [level for level, _ in rest] == ["WARNING", "WARNING"]


def test_what_could_not_be_killed_and_is_below_the_limit_by_then_is_left_alone(hog, log, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched, ProcessGuard(hog, interval=0.001, log=log) as guard:
        patched.setattr(signal, "pidfd_send_signal", refuse)
        guard.limit(1)
        until(lambda: log.told)
        guard.limit(PLENTY)
        until(lambda: guard.reading.pss is None)
        patched.undo()
        assert guard.wait(0.1) is None
    assert hog.ends()


# --- cancelled ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cancel", ["cancel", "cancel_wait"])
@pytest.mark.parametrize("state", ["without a limit", "guarding", "killed", "exited", "ended before"])
def test_a_thousand_times_cancelled(hog, cancel, state):
    if state == "ended before":
        hog.stdin.close()
        hog.wait()
    guard = ProcessGuard(hog, interval=0.001)
    if state != "without a limit":
        guard.limit(1 if state == "killed" else PLENTY)
    if state == "exited":
        hog.stdin.close()
    if state in ("killed", "exited"):
        guard.wait(EVER)
    for _ in range(1000):
        getattr(guard, cancel)()
    ended = {"killed": GuardEnd.KILLED, "exited": GuardEnd.EXITED, "ended before": GuardEnd.EXITED}
    assert guard.outcome.kind is ended.get(state, GuardEnd.CANCELLED)
    guard.wait(EVER)


def test_many_guards_cancelled_while_they_begin(hog):
    guards = []
    for number in range(200):
        guard = ProcessGuard(hog, interval=0.001)
        guard.limit(PLENTY + number)
        guard.cancel()
        guards.append(guard)
    for guard in guards:
        guard.cancel_wait()
        assert guard.outcome.kind is GuardEnd.CANCELLED
    assert hog.ends()


def test_many_threads_may_cancel_and_limit_at_once(hog):
    guard = ProcessGuard(hog, interval=0.0001)
    guard.limit(PLENTY)
    errors = []

    def hammer(function):
        try:
            for _ in range(200):
                function()
        except RuntimeError as error:
            errors.append(str(error))

    calls = [guard.cancel, guard.cancel_wait, lambda: guard.limit(PLENTY), lambda: guard.pss]
    threads = [threading.Thread(target=hammer, args=(call,)) for call in calls * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(EVER)
    assert set(errors) <= {"this guard was cancelled: make another one"}
    assert hog.ends()


@pytest.mark.timeout(method="thread")  # SIGALRM is taken
def test_a_signal_handler_may_cancel_whatever_it_interrupts(hog):
    count = 0

    def handle(*_):
        nonlocal count
        count += 1
        guard.cancel_wait()

    before = signal.signal(signal.SIGALRM, handle)
    try:
        deadline = time.monotonic() + EVER
        while count < 200 and time.monotonic() < deadline:
            guard = ProcessGuard(hog, interval=0.0001)
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + count % 20 * 0.0001)
            try:
                guard.limit(PLENTY)
                guard.limit(PLENTY + 1)
                while guard.outcome is None:
                    guard.wait(0.0001)
                    guard.pss  # noqa: B018
            except RuntimeError as error:  # it was cancelled before it began
                assert "cancelled" in str(error)  # noqa: PT017
            guard.cancel_wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count == 200
    assert hog.ends()


def test_a_logger_may_cancel_from_the_guards_own_thread(hog):
    class Log(logging.Logger):
        def log(self, *arguments):
            guard.cancel_wait()

    guard = ProcessGuard(hog, log=Log("test"))
    guard.limit(1)
    assert guard.wait(EVER).kind is GuardEnd.KILLED


def test_cancelled_while_it_dies_is_killed_and_nothing_more_is_sent(hog, monkeypatch):
    """What SIGKILL was sent to can't be saved: here it takes its time."""
    sent = []

    def note(descriptor, number, send=signal.pidfd_send_signal):
        sent.append(number)

    monkeypatch.setattr(signal, "pidfd_send_signal", note)
    guard = ProcessGuard(hog, interval=0.001)
    guard.limit(1)
    until(lambda: guard.sent)
    guard.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        guard.limit(PLENTY)
    count = len(sent)
    assert guard.outcome is None
    hog.kill()
    assert guard.wait(EVER).kind is GuardEnd.KILLED
    assert len(sent) == count


def test_what_never_dies_is_given_up_soon_after_cancel(hog, monkeypatch):
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda descriptor, number: None)
    guard = ProcessGuard(hog, interval=0.001)
    guard.limit(1)
    until(lambda: guard.sent)
    guard.cancel_wait()
    assert str(guard.outcome).endswith("> 1B, and SIGKILL was sent")
    assert guard.outcome.kind is GuardEnd.CANCELLED
    assert hog.ends()


def test_a_logger_that_fails_does_not_end_the_guard(hog):
    class Log(logging.Logger):
        def log(self, *arguments):
            raise OSError("disk full")

    with ProcessGuard(hog, interval=0.001, stats_every=0.001, log=Log("test")) as guard:
        guard.limit(PLENTY)
        assert guard.wait(0.05) is None
        guard.limit(1)
        assert guard.wait(EVER).kind is GuardEnd.KILLED


def test_after_cancel_nothing_is_sent():
    for _ in range(20):
        with Hog() as process:
            process.take(0)
            guard = ProcessGuard(process, interval=0.001)
            guard.limit(PLENTY)
            guard.limit(1)
            guard.cancel()
            outcome = guard.outcome  # none yet of one that SIGKILL was sent to before
            if outcome and outcome.kind is GuardEnd.CANCELLED and "SIGKILL" not in outcome.reason:
                assert process.ends()
            process.kill()
            guard.cancel_wait()


def test_a_cancelled_guard_takes_no_limit(hog):
    guard = ProcessGuard(hog)
    guard.cancel()
    with pytest.raises(RuntimeError, match="this guard was cancelled: make another one"):
        guard.limit(PLENTY)
    assert hog.ends()


def test_a_guard_that_is_forgotten_leaves_nothing_open(hog):
    for _ in range(10):
        ProcessGuard(hog)


def test_a_guard_does_not_keep_its_program_alive(hog):
    program = f"import unitmem; unitmem.ProcessGuard({hog.pid}, interval=3600).limit(1 << 40)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=EVER)
    assert hog.ends()


# --- calls -------------------------------------------------------------------------------------


def test_pss_is_read_afresh_where_there_is_none_yet(hog):
    guard = ProcessGuard(hog)
    before = guard.pss
    hog.take(32)
    assert guard.pss > before + 31 * MIB
    assert guard.outcome is None
    assert hog.ends()
    assert guard.pss is None
    guard.cancel()


def test_a_pidfd_is_taken_and_stays_its_owners(hog):
    pidfd = os.pidfd_open(hog.pid)
    with ProcessGuard(pidfd=pidfd) as guard:
        guard.limit(1)
        assert guard.wait(EVER).kind is GuardEnd.KILLED
        assert f"pid {hog.pid} " in repr(guard)
    signal.pidfd_send_signal(pidfd, 0)  # of a zombie, and still open
    hog.wait()
    assert str(ProcessGuard(pidfd=pidfd).outcome).startswith("exited: it had ended before")
    os.close(pidfd)


def free_pid():
    """A pid that nobody has, nor will have soon."""
    return int(Path("/proc/sys/kernel/pid_max").read_text()) - 1


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({}, TypeError, "give a process, or the pidfd of one"),
        ({"process": 1, "pidfd": 1}, TypeError, "give a process, or the pidfd of one"),
        ({"process": "7"}, TypeError, "a process is a subprocess.Popen or a pid, which must be .*, not '7'"),
        ({"process": True}, TypeError, "not True"),
        ({"process": 0}, ValueError, "a pid is above 0, not 0"),
        ({"process": -5}, ValueError, "a pid is above 0, not -5"),
        ({"process": 1}, ValueError, "PID 1 can't be ended"),
        ({"process": free_pid()}, ProcessLookupError, "no process has the pid"),
        ({"process": 1 << 40}, ProcessLookupError, "no process has the pid"),
        ({"pidfd": 0}, ValueError, "file descriptor 0 is not a pidfd"),
        ({"pidfd": "7"}, TypeError, "a pidfd must be a whole number, not '7'"),
        ({"pidfd": 9999}, OSError, "Bad file descriptor"),
        ({"process": os.getpid(), "interval": 0}, ValueError, "interval must be finite and above 0, not 0"),
        ({"process": os.getpid(), "interval": "1s"}, TypeError, "interval must be a number of seconds"),
        ({"process": os.getpid(), "stats_every": -1}, ValueError, "stats_every must be finite and above 0"),
    ],
)
def test_a_call_that_means_nothing(arguments, kind, message):
    with pytest.raises(kind, match=message):
        ProcessGuard(**arguments)


def test_a_thread_is_no_process():
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    with pytest.raises(ValueError, match="is a thread, not a process"):
        ProcessGuard(thread.native_id)
    ended.set()
    thread.join()


def test_a_pidfd_given_as_a_pid_is_pointed_out():
    pidfd = os.pidfd_open(os.getpid())
    high = os.dup2(pidfd, 999, inheritable=False)
    os.close(pidfd)
    try:
        if Path("/proc/999").exists():
            pytest.skip("somebody has the pid 999")
        with pytest.raises(
            ProcessLookupError, match="no process has the pid 999; if it is a pidfd, write pidfd=999"
        ):
            ProcessGuard(high)
    finally:
        os.close(high)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((0,), ValueError, "a limit must be above 0, not 0"),
        ((-1,), ValueError, "a limit must be above 0, not -1"),
        ((1e9,), TypeError, "a limit must be a whole number of bytes, not 1000000000.0"),
        (("1M",), TypeError, "not '1M'"),
        ((True,), TypeError, "not True"),
        ((1, 0), ValueError, "grace must be finite and above 0, not 0"),
        ((1, math.nan), ValueError, "grace must be finite and above 0, not nan"),
        ((1, "5s"), TypeError, "grace must be a number of seconds, not '5s'"),
    ],
)
def test_a_limit_that_means_nothing_is_an_error_and_changes_nothing(hog, arguments, kind, message):
    with ProcessGuard(hog) as guard:
        with pytest.raises(kind, match=message):
            guard.limit(*arguments)
        assert guard.wait() is None
        guard.limit(PLENTY)
        with pytest.raises(kind, match=message):
            guard.limit(*arguments)
        assert guard.wait(0.05) is None


def test_without_linux_it_says_so(monkeypatch):
    monkeypatch.delattr(signal, "pidfd_send_signal")
    with pytest.raises(UnsupportedSystemError, match="on Linux only"):
        ProcessGuard(os.getpid())


def test_too_many_open_files_are_an_error_and_leave_none(hog):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for room in range(3):
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + room, hard))
        fillers = []
        try:
            with suppress(OSError):
                while True:
                    fillers.append(os.open("/", os.O_RDONLY))
            for _ in range(room):
                os.close(fillers.pop())
            with pytest.raises(OSError, match="Too many open files"):
                ProcessGuard(hog)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)


# --- trees -------------------------------------------------------------------------------------

# a process with children that hold as much as the first argument says; they say so
FAMILY = """
import os, sys, time
for number in range(3):
    if os.fork() == 0:
        held = bytearray(b"x") * (int(sys.argv[1]) << 20)
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(600)
time.sleep(600)
"""


@contextmanager
def family(size, program=FAMILY, children=3):
    """A process and the pids of its children."""
    command = [sys.executable, "-SEc", program, str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        pids = [int(parent.stdout.readline()) for _ in range(children)]
        try:
            yield parent, pids
        finally:
            for pid in [parent.pid, *pids]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_tree_is_the_sum_of_all_and_ends_together(log):
    with family(24) as (parent, children), ProcessGuard(parent, tree=True, interval=0.001, log=log) as guard:
        guard.limit(PLENTY)
        reading = until(lambda: guard.reading)
        assert reading.processes == 4
        assert guard.pss > 3 * 24 * MIB
        guard.limit(60 * MIB)  # more than any has for itself
        assert guard.wait(EVER).kind is GuardEnd.KILLED
        assert not any(map(lives, [parent.pid, *children]))
        assert parent.wait() == -signal.SIGKILL
    assert [level for level, _ in log.told if level != "INFO"] == ["WARNING", "WARNING"]


def test_without_tree_descendants_count_for_nothing_and_are_left_alone():
    with family(24) as (parent, children), ProcessGuard(parent, interval=0.001) as guard:
        guard.limit(60 * MIB)
        assert guard.wait(0.1) is None
        guard.limit(1)
        assert guard.wait(EVER).kind is GuardEnd.KILLED
        assert all(map(lives, children))


def test_a_tree_outlives_its_root_and_ends_with_the_last():
    with family(24) as (parent, children), ProcessGuard(parent, tree=True, interval=0.001) as guard:
        guard.limit(PLENTY)
        until(lambda: guard.reading)
        parent.kill()
        parent.wait()
        assert guard.wait(0.1) is None
        assert until(lambda: guard.reading.processes == 3)
        guard.limit(60 * MIB)
        assert guard.wait(EVER).kind is GuardEnd.KILLED
        assert not any(map(lives, children))


def test_grace_is_given_to_a_whole_tree():
    with family(24) as (parent, children), ProcessGuard(parent, tree=True, interval=0.001) as guard:
        guard.limit(60 * MIB, grace=EVER)
        assert guard.wait(EVER).kind is GuardEnd.KILLED
        assert guard.outcome.reason.endswith("by SIGTERM")
        assert parent.wait() == -signal.SIGTERM
        assert not any(map(lives, children))


# forks on and on, and each child lives for a moment only and has another one before
RESTLESS = """
import os, time
os.write(1, b"1\\n")
generation = 0
while generation < 2000:
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.3)
            os._exit(0)
        os.wait()
        os._exit(0)
    generation += 1
    if generation > 4:
        os.wait()
"""


def test_a_tree_that_forks_all_the_time_is_ended_whole():
    with subprocess.Popen(
        [sys.executable, "-SEc", RESTLESS], stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        parent.stdout.readline()
        with ProcessGuard(parent, tree=True, interval=0.001) as guard:
            guard.limit(1)
            assert guard.wait(EVER).kind is GuardEnd.KILLED
        session = parent.pid
        alive = [
            stat
            for stat in map(read_stat, filter(str.isdecimal, os.listdir("/proc")))
            if stat and stat[3] == str(session) and stat[0] not in "ZX"
        ]
        assert alive == []


def read_stat(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_a_program_in_the_tree_that_it_guards_goes_last():
    """It stops the others and not itself, and ends when they have."""
    program = (
        "import os, subprocess, sys, time, unitmem\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(child.pid, flush=True)\n"
        "guard = unitmem.ProcessGuard(os.getpid(), tree=True)\n"
        "guard.limit(1)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        assert process.wait(EVER) == -signal.SIGKILL
        until(lambda: not lives(child))


# --- pids that are used again ------------------------------------------------------------------


def test_whoever_has_the_pid_next_is_never_read_nor_signalled():
    """In a pid namespace of its own, where the next pid can be chosen."""
    command = ["unshare", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    command += ["--pid", "--mount-proc", "--fork", "--kill-child", "bash", "-c", '"$@"; exit', "bash"]
    command += [sys.executable, str(Path(__file__).with_name("pid_reuse.py"))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=2 * EVER)
    if done.returncode == 77 or (done.returncode == 1 and done.stderr.startswith("unshare:")):
        pytest.skip(f"no pid namespace, or none where the next pid can be chosen: {done.stderr}")
    assert done.returncode == 0, done.stderr
