"""The Ansible role on a real machine, from nothing to nothing: one story, since each run of a play takes a while.

The play is the example's own, and the inventory is what `vagrant/guest` writes. What the role makes of its options is
tested without a guest, in tests/unit/test_role.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
GUEST = CHECKOUT / "vagrant/guest"


@dataclass(frozen=True)
class Played:
    """A play that ran."""

    status: int
    output: str

    @property
    def changed(self) -> set[tuple[str, str]]:
        """Each task that changed something, with the item that it did that for."""
        found = set()
        task = ""
        for line in self.output.splitlines():
            if match := re.match(r"(?:TASK|RUNNING HANDLER) \[unitmem : (.*)\]", line):
                task = match[1]
            elif match := re.match(r"changed: \[\w+\](?: => \(item=(.*)\))?", line):
                found.add((task, match[1] or ""))
        return found


@pytest.fixture
def play(host, suite, tmp_path) -> Callable[..., Played]:
    """play(*options, **variables): run the example's play against the guest."""
    inventory = subprocess.check_output([GUEST, "inventory", suite], text=True).strip()

    def run(*options: str, **variables: object) -> Played:
        (tmp_path / "variables.json").write_text(json.dumps(variables))
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("ansible-playbook"), "--inventory", inventory, "--diff"),
                *("--extra-vars", f"@{tmp_path}/variables.json", *options, CHECKOUT / "ansible/site.yml"),
            ],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ | {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible/ansible.cfg"), "NO_COLOR": "1"},
        )
        return Played(done.returncode, done.stdout + done.stderr)

    return run


def leak(threshold):
    steps = [{"when": f"anon > {threshold}", "for": "10s", "do": "log"}]
    return [{"name": "leak", "units": ["e2e-role-*.service"], "steps": steps}]


# what there is of unitmem on a machine, what the guest has from elsewhere and logs aside
REMAINS = """
    find / /run -xdev -name '*unitmem*' ! -path '/var/tmp/*' ! -path '/usr/local/lib/unitmem-workloads*' \
        ! -path '/etc/*/unitmem.conf' ! -path '/etc/*/unitmem'
    systemctl list-units --all --plain --no-legend 'unitmem*'
    systemctl list-unit-files --no-legend 'unitmem*'
"""


# a person's own instance, as the role makes them: a policy, an option of the unit, and enabled
BY_HAND = """
    mkdir -p /etc/systemd/system/unitmem@e2e-hand.service.d
    printf '[Service]\\nEnvironment=UNITMEM_OPTIONS=--observe\\n' \
        >/etc/systemd/system/unitmem@e2e-hand.service.d/observe.conf
    echo 'policies: [{name: hand, units: ["e2e-role-*.service"], steps: [{when: "anon > 1G", do: log}]}]' \
        >/etc/unitmem/e2e-hand.yaml
    systemctl daemon-reload
    systemctl enable --now unitmem@e2e-hand.service
"""


def files(host, name):
    """The files that an instance has, for whatever name."""
    # others' files may vanish while it looks, which it says by its status
    found = host.run("find /etc /opt /run /usr /var/cache /var/lib -xdev -name %s", f"*{name}*").stdout
    return {path.replace(name, "NAME") for path in found.splitlines()}


@pytest.fixture
def installed_again(host, play):
    """The guest as other tests want it, whatever becomes of this one."""
    yield
    host.run(
        "systemctl disable --now unitmem@e2e-data unitmem@e2e-file unitmem@e2e-gone unitmem@e2e-hand;"
        " rm -rf /etc/unitmem/e2e-* /etc/systemd/system/unitmem@e2e-* /var/lib/unitmem/e2e-*; systemctl daemon-reload"
    )
    if host.run("unitmem --version").rc != 0:
        play()


@pytest.mark.usefixtures("installed_again")
def test_the_role_from_nothing_to_nothing(play, host, suite, tmp_path):
    written = tmp_path / "by-file.yaml"
    written.write_text(json.dumps({"policies": leak("2G")}))
    data = {"name": "e2e-data", "policies": leak("1G")}
    file = {"name": "e2e-file", "file": str(written), "observe": True}
    gone = {"name": "e2e-gone", "policies": leak("2G"), "observe": True}

    def now():
        """Of both instances: the process, its command line, and the policies."""
        script = "; ".join(
            f"pid=$(systemctl show --property MainPID --value unitmem@{name}.service)"
            f" && echo $pid $(tr '\\0' ' ' </proc/$pid/cmdline) && sha1sum /etc/unitmem/{name}.yaml"
            for name in ("e2e-data", "e2e-file")
        )
        lines = host.check_output(script).splitlines()
        return {"data": lines[:2], "file": lines[2:]}

    # nothing remains, no file and no unit
    host.check_output(BY_HAND)
    by_hand = files(host, "e2e-hand")
    removed = play(unitmem_state="absent")
    assert removed.status == 0, removed.output
    assert host.run(REMAINS).stdout == ""

    # what check mode tells is what is done then, also of a machine that has no unitmem yet
    instances = [data, file, gone] if suite == "bookworm" else [data, file]
    foretold = play("--check", unitmem_instances=instances)
    assert foretold.status == 0, foretold.output
    assert '+  - name: "leak"' in foretold.output.splitlines()
    assert host.run(REMAINS).stdout == ""
    installed = play(unitmem_instances=instances)
    assert installed.status == 0, installed.output
    assert foretold.changed <= installed.changed
    # what it doesn't tell of is what the package or the wheel brings
    assert {item for _, item in installed.changed - foretold.changed} <= {""}
    assert {
        ("Write the policies", "e2e-data"),
        ("Start or stop the instances", "e2e-data"),
        ("Start or stop the instances", "e2e-file"),
    } < foretold.changed
    before = now()
    assert "--observe" not in before["data"][0]
    assert "--observe" in before["file"][0]
    assert host.file("/etc/unitmem/e2e-file.yaml").content_string == written.read_text()
    assert files(host, "e2e-file") == by_hand, "all that the role makes is what it has removed"

    # a play takes a minute in a guest, so each of what follows runs in one of them
    if suite == "trixie":
        # what an interrupted run has left undone, the next one does, and nothing else
        host.check_output("touch /etc/unitmem/e2e-data.yaml")
        mended = play(unitmem_instances=[data, file])
        assert mended.status == 0, mended.output
        assert mended.changed == {
            ("Find instances that run what an earlier change has replaced", ""),
            ("Reload the instances", "e2e-data"),
        }
        return

    # a broken policy is told by its place, and everything is as it was
    written.write_text(
        'policies:\n  - name: leak\n    units: ["a.service"]\n    steps: [{when: anon > 2, do: log}]\n'
    )
    refused = play(
        "--tags", "unitmem_instances", unitmem_instances=[{**data, "policies": leak("1")}, file, gone]
    )
    assert refused.status != 0
    assert f"{written}:4:27: '2' has no unit: write 2M" in refused.output
    assert "/etc/unitmem/e2e-data.yaml:6:" in refused.output
    assert '- {"when": "anon > 1", "for": "10s", "do": "log"}' in refused.output, "the line itself"
    assert refused.changed == set()
    assert now() == before

    # one is changed and reloaded, one may act now and is restarted, one is not wanted and removed; and what others could
    # change is root's again
    host.check_output("chown nobody /etc/unitmem")
    data["policies"] = leak("3G")
    written.write_text(json.dumps({"policies": leak("2G")}))
    file["observe"] = False
    gone = {"name": "e2e-gone", "state": "absent"}
    changed = play(unitmem_instances=[data, file, gone])
    assert changed.status == 0, changed.output
    assert ("Reload the instances", "e2e-data") in changed.changed
    assert ("Restart the instances", "e2e-file") in changed.changed
    assert files(host, "e2e-gone") == set()
    assert host.file("/etc/unitmem").user == "root"
    after = now()
    assert after["data"][0] == before["data"][0]
    assert after["data"][1] != before["data"][1]
    assert "--observe" not in after["file"][0]
    loaded = host.check_output("journalctl --output=cat --unit unitmem@e2e-data.service")
    assert "/etc/unitmem/e2e-data.yaml is loaded" in loaded
    again = play("--check", unitmem_instances=[data, file, gone])
    assert (again.status, again.changed) == (0, set()), again.output
