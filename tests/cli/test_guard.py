"""`unitmem guard` as a process: what it runs can't tell the difference, but for its limit."""

from __future__ import annotations

import os
import pty
import random
import re
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

UNITMEM = [sys.executable, "-m", "unitmem"]
EVER = 60.0
"""Seconds after which a test gives up; nothing is asserted about how long a thing takes."""

GREEDY = "a=(); while :; do a+=(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx); done"
# prints the name of each signal it gets, and ends when its input does
# A read that a signal just precedes would wait on, with Python's handler still to run: hence the pipe.
LISTENER = """
import os, select, signal
ends = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
for number in signal.valid_signals() - ends:
    signal.signal(number, lambda number, frame: os.write(1, b"%d\\n" % number))
reader, writer = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(writer)
print("ready", flush=True)
while True:
    ready = select.select([0, reader], [], [])[0]
    if reader in ready:
        os.read(reader, 64)
    if 0 in ready and not os.read(0, 64):
        break
"""
LARGE = "held = bytearray(b'x') * (32 << 20); import time; print('large', flush=True); time.sleep(600)"


class Guard(subprocess.Popen):
    """`unitmem guard`, for which a test that fails doesn't wait."""

    def __exit__(self, kind, *rest):
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


def guard(*arguments, **options):
    """`unitmem guard` with these arguments, started."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return Guard([*UNITMEM, "guard", *arguments], **{**pipes, **options})


def python(program, *arguments):
    return ["--", sys.executable, "-SEc", program, *arguments]


def until(condition):
    deadline = time.monotonic() + EVER
    while not (answer := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return answer


def state(pid):
    """The letter that /proc gives; None of a process that is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    return None


def child_of(process):
    return int(until(lambda: Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())[0])


# --- the limit ---------------------------------------------------------------------------------


def test_a_command_above_its_limit_is_killed_and_that_is_told():
    done = guard("--pss", "4M", "--interval", "1ms", "--", "bash", "-c", GREEDY)
    out, err = done.communicate(timeout=EVER)
    assert (done.returncode, out) == (128 + signal.SIGKILL, "")
    sent, killed = err.splitlines()
    assert re.fullmatch(r"unitmem: pid \d+ \(bash\): PSS \S+ > \S+( bytes)?: SIGKILL sent", sent)
    assert re.fullmatch(r"unitmem: pid \d+ \(bash\): killed: PSS \S+ > \S+( bytes)?; by SIGKILL", killed)


@pytest.mark.parametrize("handler", ["lambda *_: sys.exit(0)", "signal.SIG_DFL"])
def test_a_command_that_ends_when_told_to_has_not_ended_well(handler):
    program = f"import signal, sys; signal.signal(signal.SIGTERM, {handler}); {LARGE}"
    done = guard("--pss", "24M", "--interval", "1ms", "--grace", "1h", *python(program))
    _, err = done.communicate(timeout=EVER)
    assert done.returncode == 128 + signal.SIGTERM
    assert "SIGTERM sent, SIGKILL follows in 1h\n" in err
    assert err.endswith("; by SIGTERM\n")


def test_a_tree_is_measured_and_ended_together():
    program = f"import os; [os.fork() for _ in range(2)]; {LARGE}"  # four of them
    with guard(
        "--pss", "90M", "--interval", "1ms", "--tree", *python(program), start_new_session=True
    ) as done:
        session = str(done.pid)
        _, err = done.communicate(timeout=EVER)
    assert done.returncode == 128 + signal.SIGKILL
    assert "killed: PSS" in err
    stats = [Path(f"/proc/{pid}/stat") for pid in filter(str.isdecimal, os.listdir("/proc"))]
    fields = [stat.read_text().rpartition(") ")[2].split() for stat in stats if stat.exists()]
    assert [field for field in fields if field[3] == session and field[0] not in "ZX"] == []


def test_what_a_tree_leaves_running_is_told_of():
    done = guard(
        "--pss",
        "1G",
        "--interval",
        "1ms",
        "--tree",
        "sh",
        "-c",
        "sleep 600 >&- 2>&- & sleep .3; echo $!; exit 5",
    )
    out, err = done.communicate(timeout=EVER)
    assert done.returncode == 5
    assert err.endswith("ended; what it left running is no longer guarded\n")
    os.kill(int(out), signal.SIGKILL)


def test_a_guard_that_can_not_be_set_up_leaves_no_command(run, monkeypatch):
    started = []

    def refuse(command, **options):
        started.append(command)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("unitmem.cli.guard.ProcessGuard", refuse)
    ended = run("guard", "--pss", "1G", "sleep", "600")
    assert ended.status == 1
    assert ended.err.startswith("unitmem: too many open files\nRaise the limit: ")
    (command,) = started
    assert command.returncode == 128 + signal.SIGKILL
    assert state(command.pid) is None


# --- status ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status", "err"),
    [
        ("exit 7", 7, ""),
        pytest.param("exit 255", 255, "", marks=pytest.mark.slow),
        ("kill -SEGV $$", 139, r"unitmem: pid \d+ \(sh\): ended by SIGSEGV, not by its limit\n"),
        pytest.param(
            "kill -TERM $$",
            143,
            r"unitmem: pid \d+ \(sh\): ended by SIGTERM, not by its limit\n",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "kill -KILL $$",
            137,
            r"unitmem: pid \d+ \(sh\): ended by SIGKILL, not by its limit\n",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_status_is_that_of_the_command(script, status, err):
    done = guard("--pss", "1G", "sh", "-c", script)
    _, told = done.communicate(timeout=EVER)
    assert done.returncode == status
    assert re.fullmatch(err, told)


def test_input_output_and_surroundings_are_those_of_the_command(tmp_path):
    """Signals that are blocked or ignored too, and descriptors that were passed on."""
    script = "cat; cat /proc/self/fd/187; grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status; pwd; echo $X"
    path = tmp_path / "nine"
    path.write_text("nine\n")

    def output(*before):
        with path.open() as file:
            os.dup2(file.fileno(), 187)
        try:
            return subprocess.run(
                ["env", "--ignore-signal=INT,HUP", "--block-signal=USR1", *before, "sh", "-c", script],
                input="typed\n",
                capture_output=True,
                text=True,
                check=True,
                cwd=tmp_path,
                env={**os.environ, "X": "x"},
                pass_fds=[187],
            )
        finally:
            os.close(187)

    direct, guarded = output(), output(*UNITMEM, "guard", "--pss", "1G")
    assert guarded.stderr == ""
    # posix_spawn(3) has 32 and 33 ignored, which are the C library's own; whoever started the tests may have used it
    direct, guarded = (
        re.sub(r"(?<=SigIgn:\t)\w+", lambda found: f"{int(found[0], 16) & ~(3 << 31):016x}", done.stdout)
        for done in (direct, guarded)
    )
    assert guarded == direct
    assert guarded.startswith("typed\nnine\n")


def test_it_works_where_nobody_listens():
    """Neither a closed descriptor nor a reader that goes away is a reason to guard no longer."""
    for redirection in (">&-", "2>&-", "<&- >&- 2>&-"):
        script = f'"$@" {redirection}'
        done = subprocess.run(
            ["sh", "-c", script, "sh", *UNITMEM, "guard", "--pss", "1G", "sh", "-c", "exit 7"], check=False
        )
        assert done.returncode == 7
    reader, writer = os.pipe()
    os.close(reader)
    # where Python keeps what it could not write, and tries again as it ends
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = guard("--pss", "4M", "--interval", "1ms", "bash", "-c", GREEDY, stderr=writer, env=buffered)
    os.close(writer)
    done.communicate(timeout=EVER)
    assert done.returncode == 128 + signal.SIGKILL


# --- signals -----------------------------------------------------------------------------------


def test_every_signal_is_passed_on_once():
    with guard("--pss", "1G", *python(LISTENER)) as done:
        assert done.stdout.readline() == "ready\n"
        numbers = [
            "HUP",
            "INT",
            "QUIT",
            "TERM",
            "USR1",
            "USR2",
            "WINCH",
            "ALRM",
            "ABRT",
            "CONT",
            "URG",
            "RTMIN",
        ]
        for name in numbers:
            number = getattr(signal, f"SIG{name}")
            done.send_signal(number)
            assert int(done.stdout.readline()) == number
        done.stdin.close()
        assert done.stdout.read() == ""
        assert done.wait(EVER) == 0


@pytest.mark.parametrize(
    "name",
    [
        *("INT", "QUIT", "TERM"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("HUP", "ABRT", "USR1", "ALRM", "RTMIN")),
    ],
)
def test_a_signal_that_ends_the_command_ends_its_guard_too(name, tmp_path):
    """By the signal, as systemd and shells expect of what they signalled; and no core is dumped of the guard."""
    number = int(getattr(signal, f"SIG{name}"))
    program = f"import signal; signal.signal({number}, signal.SIG_DFL); {LARGE}"
    with guard("--pss", "1G", *python(program), cwd=tmp_path) as done:
        assert done.stdout.readline() == "large\n"
        child = child_of(done)
        unlimited = resource.prlimit(done.pid, resource.RLIMIT_CORE)[1]
        resource.prlimit(done.pid, resource.RLIMIT_CORE, (unlimited, unlimited))
        resource.prlimit(child, resource.RLIMIT_CORE, (0, 0))
        done.send_signal(number)
        done.communicate(timeout=EVER)
        assert done.returncode == -number
        assert state(child) is None
        assert list(tmp_path.iterdir()) == []


def test_a_signal_before_the_command_is_started_ends_the_guard_by_it():
    """The command alone would have been ended by it; where it was to block the signal, it gets it."""
    program = (
        "import os, signal, sys\n"
        "from contextlib import contextmanager\n"
        "from unitmem.cli import guard, main\n"
        "blocking = guard.blocking\n"
        "@contextmanager\n"
        "def with_signal(numbers):\n"
        "    with blocking(numbers) as mask:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        yield mask\n"
        "guard.blocking = with_signal\n"
        "sys.exit(main(['guard', '--pss', '1G', 'grep', 'ShdPnd', '/proc/self/status']))\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")
    command = ["env", "--block-signal=TERM", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"ShdPnd:\t{1 << signal.SIGTERM - 1:016x}\n")


def test_a_command_that_is_stopped_before_it_is_executed_does_not_block_its_guard():
    """As Ctrl-Z or a SIGSTOP at that moment does: signals are passed on, and all goes on when it is continued."""
    # a search that takes long enough to be stopped in the midst of it
    path = ":".join(["/-"] * 40_000)
    with guard(
        "--pss", "1G", "sleep", "600", env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    ) as done:
        children = Path(f"/proc/{done.pid}/task/{done.pid}/children")
        while not (found := children.read_text().split()):
            assert done.poll() is None
        child = int(found[0])
        os.kill(child, signal.SIGSTOP)
        until(lambda: state(child) == "T")
        assert Path(f"/proc/{child}/exe").readlink() == Path(f"/proc/{done.pid}/exe").readlink()
        done.terminate()
        try:
            until(lambda: signal.SIGTERM in pending(child))
        finally:
            os.kill(child, signal.SIGCONT)
        done.communicate(timeout=EVER)
        assert done.returncode == -signal.SIGTERM
        assert state(child) is None


def pending(pid):
    """The signals that were sent to a process, and wait until they can be delivered."""
    mask = int(re.search(r"ShdPnd:\t(\w+)", Path(f"/proc/{pid}/status").read_text())[1], 16)
    return {number for number in signal.valid_signals() if mask >> number - 1 & 1}


def test_a_signal_at_any_moment_of_the_start_leaves_nothing_behind():
    """Before the command, between it and the guard, or after."""
    chance = random.Random(4711)
    mark = f"guard-test-{os.getpid()}"
    for _ in range(8):
        done = guard("--pss", "1G", "sleep", "600", env={**os.environ, "MARK": mark})
        time.sleep(chance.uniform(0, 0.4))
        done.terminate()
        _, err = done.communicate(timeout=EVER)
        assert done.returncode == -signal.SIGTERM
        assert "Traceback" not in err
    assert marked(mark) == []


def marked(mark):
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if f"MARK={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def test_a_command_that_is_stopped_alone_stays_under_guard():
    """Its guard can't stop with it: whoever continues it need not know of the guard."""
    with guard(
        "--pss", "24M", "--interval", "1ms", *python("import sys; sys.stdin.readline()\n" + LARGE)
    ) as done:
        child = child_of(done)
        os.kill(child, signal.SIGSTOP)
        until(lambda: state(child) == "T")
        time.sleep(0.05)
        until(lambda: state(done.pid) in "RS")
        os.kill(child, signal.SIGCONT)
        done.stdin.write("\n")
        done.stdin.flush()
        assert done.wait(EVER) == 128 + signal.SIGKILL
        done.communicate()


# --- processes that run already ----------------------------------------------------------------


def test_a_process_that_runs_is_taken_and_killed():
    with subprocess.Popen(python(LARGE)[1:], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        done = guard("--pss", "24M", "--pid", str(process.pid))
        _, err = done.communicate(timeout=EVER)
        assert done.returncode == 128 + signal.SIGKILL
        assert f"unitmem: pid {process.pid} (" in err
        assert "killed: PSS" in err
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_was_taken_is_left_alone_when_its_guard_ends(number):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        done = guard("--pss", "1G", "--pid", str(process.pid), "--interval", "1h")
        until(lambda: len(os.listdir(f"/proc/{done.pid}/task")) > 1)
        done.send_signal(number)
        _, err = done.communicate(timeout=EVER)
        assert done.returncode == 128 + number
        assert err == f"unitmem: pid {process.pid} (cat): cancelled: it is no longer guarded\n"
        process.stdin.close()
        assert process.wait() == 0


def test_a_process_that_exits_ends_its_guard():
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        done = guard("--pss", "1G", "--pid", str(process.pid), "--interval", "1h")
        until(lambda: len(os.listdir(f"/proc/{done.pid}/task")) > 1)
        process.stdin.close()
        _, err = done.communicate(timeout=EVER)
        assert done.returncode == 0
        assert err.startswith(f"unitmem: pid {process.pid} (cat): exited: it ended")


def test_a_process_of_another_user_is_not_guarded_by_halves():
    if os.geteuid() != 0:
        pytest.skip("it takes root to become someone who may not")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        program = (
            "import os, sys; from unitmem.cli import application, main; application(['guard']); os.setuid(65534); "
            f"sys.exit(main(['guard', '--pss', '1G', '--pid', '{process.pid}']))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert (
            "failed: its PSS can't be read: permission denied (it needs root or CAP_SYS_PTRACE)"
            in done.stderr
        )
        process.stdin.close()
        assert process.wait() == 0


# --- on a terminal -----------------------------------------------------------------------------


class Terminal:
    """A shell on a terminal of its own: what is typed there, and what stands there."""

    def __init__(self, tmp_path):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # whatever started the tests may ignore them, as a shell's background does, and a shell never resets those
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            environment = {**os.environ, "PS1": "$ ", "TERM": "xterm", "HISTFILE": str(tmp_path / "history")}
            os.execvpe("bash", ["bash", "--norc", "--noediting", "-i"], environment)
        self.seen = ""

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.master)

    def type(self, text):
        os.write(self.master, text.encode())

    def until(self, pattern):
        """What stands there from the last mark up to `pattern`; the mark is set after it."""
        deadline = time.monotonic() + EVER
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 1 << 16).decode().replace("\r\n", "\n")
        before, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return before


@pytest.fixture
def terminal(tmp_path):
    terminal = Terminal(tmp_path)
    terminal.until(r"\$ ")
    terminal.type("stty -echo\n")
    terminal.until(r"\$ ")
    yield terminal
    terminal.close()


def command_line(*arguments):
    return " ".join(f"'{word}'" for word in [*UNITMEM, "guard", *arguments])


def test_ctrl_c_reaches_the_command_once_and_progress_is_shown(terminal, tmp_path):
    script = tmp_path / "listener.py"
    script.write_text(LISTENER)
    terminal.type(f"{command_line('--pss', '1G', '--', sys.executable, str(script))}\n")
    assert re.search(r"unitmem: pid \d+ \(\S+\): guarded, PSS limit 1\.0G\n", terminal.until("ready\n"))
    for _ in range(3):
        terminal.type("\x03")
        assert terminal.until(r"2\n").endswith("2\n")
    terminal.type("\x04")
    assert "2\n" not in terminal.until("exited with status 0\n")


def test_ctrl_c_ends_a_script_with_the_command(terminal):
    terminal.type(
        f'bash -c "for i in 1 2; do {command_line("--pss", "1G", "sleep", "600")}; done; echo on"; echo status $?\n'
    )
    terminal.until("guarded, PSS limit")
    terminal.type("\x03")
    terminal.until("ended by SIGINT")
    terminal.type("echo status=$?\n")
    told = terminal.until(r"status=\d+\n")
    assert told.endswith("status=130\n")
    assert "on\n" not in told


def test_ctrl_z_stops_both_and_fg_continues_them(terminal):
    terminal.type(f"{command_line('--pss', '1G', 'cat')}\n")
    terminal.until("guarded, PSS limit")
    for _ in range(2):
        terminal.type("\x1a")
        terminal.until("Stopped")
        terminal.type("jobs -p\n")
        job = int(terminal.until(r"\d+\n").split()[-1])
        assert state(job) == "T"
        child = int(Path(f"/proc/{job}/task/{job}/children").read_text())
        assert state(child) == "T"
        terminal.type("fg\n")
        until(lambda job=job, child=child: {state(job), state(child)} == {"S"})
    terminal.type("heard\n")
    terminal.until("heard\n")
    terminal.type("\x04")
    terminal.until("exited with status 0\n")


def test_progress_is_painted_where_the_last_line_is_ours(terminal):
    terminal.type(f"{command_line('--pss', '1G', 'sleep', '600')} >/dev/null\n")
    terminal.until(r"\runitmem: pid \d+ \(sleep\): \w+ [\d.]+[KM], 0% of 1\.0G\x1b\[K")
    terminal.type("\x03")
    assert terminal.until("ended by SIGINT").count("\r\x1b[Kunitmem: pid") == 1
