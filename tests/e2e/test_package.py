"""The Debian package in its life on a machine: upgraded under a running guard, removed, purged, and installed anew."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from unitmem import __version__
from unitmem.policy.journal_fields import DECISION_MESSAGE_ID

pytestmark = pytest.mark.suites("trixie")

CHECKOUT = Path(__file__).parents[2]
NEWER = f"{__version__}+newer"
INSTALL = "unshare --net env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends %s"
VICTIM = "e2e-package-victim.service"
POLICY = f"""
interval: 1s
policies:
  - name: package
    units: ["{VICTIM}"]
    steps:
      - {{when: "anon > 24M", do: log}}
      - {{when: "anon > 24M", for: 1s, do: {{signal: SIGUSR1, to: main}}}}
      - {{when: "anon > 64M", do: stop}}
    clear: "anon < 8M"
    budget: {{actions: 2, per: 1h}}
"""


@pytest.fixture
def newer(tmp_path, host, suite):
    """The path in the guest of a package of the same sources with a higher version."""
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=CHECKOUT, text=True
    )
    tree = tmp_path / "unitmem"
    for name in listed.splitlines():
        if (CHECKOUT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, tree / name, follow_symlinks=False)
    for name in ("src/unitmem/__init__.py", "debian/changelog"):
        path = tree / name
        path.write_text(path.read_text().replace(__version__, NEWER, 1))
    subprocess.run([tree / "debian/build-deb", "--quick"], check=True, stdin=subprocess.DEVNULL)
    (package,) = (tree / "dist").iterdir()
    there = f"/var/tmp/{package.name}"
    with package.open("rb") as file:
        command = [CHECKOUT / "vagrant/guest", "ssh", suite, f"cat >{there}"]
        subprocess.run(command, check=True, stdin=file)
    yield there
    host.run("rm %s", there)
    # whatever became of it, other tests want the package that they test
    if host.run("dpkg-query --show --showformat='${Version}' unitmem").stdout != __version__:
        host.run("dpkg --install /var/tmp/unitmem/unitmem.deb")


@pytest.fixture
def instance(host):
    """instance(name, policy): write the policy, and enable and start its instance."""
    names = []

    def start(name, policy):
        names.append(name)
        host.check_output("printf %%s %s >/etc/unitmem/%s.yaml", policy, name)
        return host.run("systemctl enable --now unitmem@%s.service 2>/dev/null", name)

    yield start
    for name in names:
        host.run(
            "systemctl disable --now unitmem@%s.service; rm -rf /etc/unitmem/%s.yaml /var/lib/unitmem/%s",
            *[name] * 3,
        )


def show(host, name, *properties):
    shown = host.check_output(
        "systemctl show --property %s --value unitmem@%s.service", ",".join(properties), name
    )
    return shown.splitlines()


def decided(journal, victim):
    entries = journal.entries(victim.name, victim.since)
    return [entry["UNITMEM_ACTION"] for entry in entries if entry.get("MESSAGE_ID") == DECISION_MESSAGE_ID]


def remains(host):
    """Every file that has our name, but for those of the guest itself."""
    found = host.check_output(
        "find / /run -xdev -name '*unitmem*' ! -path '/var/tmp/*' ! -path '/usr/local/lib/unitmem-workloads*' "
        "! -path '/etc/*/unitmem.conf' ! -path '/etc/*/unitmem'"
    )
    units = host.check_output("systemctl list-units --all --plain --no-legend 'unitmem*'")
    return [*found.splitlines(), *units.splitlines()]


def test_upgrade_remove_purge_and_install(host, newer, instance, unit, journal, eventually):
    """An episode that is open meanwhile loses and repeats nothing; no step has a network."""
    instance("e2e-package", POLICY)
    instance("e2e-edited", POLICY.replace(VICTIM, "e2e-package-none.service"))
    assert instance("e2e-broken", "policies: 3\n").rc != 0
    victim = unit("leak", "--start", "32M", "--max", "32M", name=VICTIM)
    eventually(lambda: decided(journal, victim) == ["log", "SIGUSR1"], "two steps fire")
    pids = {name: show(host, name, "MainPID") for name in ("e2e-package", "e2e-edited")}
    host.check_output("echo 'policies: 3' >/etc/unitmem/e2e-edited.yaml")

    told = host.run(INSTALL, newer)
    assert told.rc == 0, told.stdout + told.stderr
    assert host.check_output("unitmem --version") == f"unitmem {NEWER}"
    # it has read its policies, and watches, when the upgrade is over
    assert show(host, "e2e-package", "ActiveState") == ["active"]
    assert show(host, "e2e-package", "MainPID") != pids["e2e-package"]
    assert "1 policy over 1 running unit" in show(host, "e2e-package", "StatusText")[0]
    # a guard of the version before is better than none
    assert show(host, "e2e-edited", "MainPID") == pids["e2e-edited"]
    # apt gives dpkg a terminal of its own, and what comes from that to its output
    assert "unitmem@e2e-edited.service goes on with the version from before" in told.stdout
    assert set(show(host, "e2e-broken", "ActiveState", "NRestarts")) == {"failed", "0"}

    # the episode goes on: what fired has fired, what is left of the budget is left, and what comes next comes
    group = victim.get("ControlGroup")
    host.check_output(
        "nohup sh -c 'echo $$ >/sys/fs/cgroup/%s/cgroup.procs; exec /usr/local/lib/unitmem-workloads/steady"
        " --size 48M' >/dev/null 2>&1 </dev/null &",
        group,
    )
    eventually(lambda: not victim.is_active(), "the third step fires")
    assert decided(journal, victim) == ["log", "SIGUSR1", "stop"]

    host.check_output("apt-get remove --yes unitmem")
    # those that are enabled have a name still, as their links are configuration
    assert host.check_output("systemctl list-units --plain --no-legend 'unitmem*'") == ""
    assert host.file("/etc/unitmem/e2e-package.yaml").exists
    assert host.file("/var/lib/unitmem/e2e-package/state.json").exists
    host.check_output("apt-get purge --yes unitmem")
    assert remains(host) == []

    host.check_output(INSTALL, "/var/tmp/unitmem/unitmem.deb")
    assert host.check_output("unitmem --version") == f"unitmem {__version__}"
    assert re.match(r"UNIT +CURRENT +WORKINGSET ", host.check_output("unitmem list"))
    assert host.run("systemctl is-enabled unitmem@example.service").stdout.strip() == "disabled"
    assert host.check_output("systemctl list-units --all --plain --no-legend 'unitmem@*'") == ""
    example = host.file("/usr/share/doc/unitmem/examples/first-look.yaml").content_string
    assert instance("example", example).rc == 0
    assert show(host, "example", "ActiveState") == ["active"]
