"""What others can do to a watch: a manager that doesn't read, a policy file that anybody may write."""

from __future__ import annotations

import pytest

POLICY = """
policies:
  - name: edges
    units: [e2e-edges.service]
    steps: [{when: "anon > 16M", do: log}]
"""
DEAF = """
import os, socket, subprocess, sys
manager, other = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
manager.bind(sys.argv[1])
other.setblocking(False)
try:
    while True:
        other.sendto(b"STATUS=full", sys.argv[1])
except BlockingIOError:
    pass
watch = ["timeout", "--signal=KILL", "120", "unitmem", "watch", "--once", sys.argv[2]]
sys.exit(subprocess.run(watch, env=os.environ | {"NOTIFY_SOCKET": sys.argv[1]}).returncode)
"""
"""Runs a watch whose manager has no room for a message, and never will."""


@pytest.mark.suites("bookworm")
def test_a_watch_decides_though_its_manager_does_not_read(host, unit):
    unit("steady", "--size", "32M", name="e2e-edges.service")
    directory = host.check_output("mktemp --directory")
    try:
        path = f"{directory}/edges.yaml"
        host.check_output("printf %%s %s >%s", POLICY, path)
        done = host.run("python3 -c %s %s/notify %s", DEAF, directory, path)
        assert done.rc == 0, done.stderr
        assert "e2e-edges.service: " in done.stderr
    finally:
        host.run("rm -r %s", directory)


@pytest.mark.suites("trixie")
def test_a_file_that_anybody_may_write_is_refused_until_it_is_mended(host):
    path, service = "/etc/unitmem/e2e-edges.yaml", "unitmem@e2e-edges.service"
    host.check_output("printf %%s %s >%s && chmod 0666 %s", POLICY, path, path)
    try:
        assert host.run("systemctl start %s", service).rc != 0
        shown = host.check_output(
            "systemctl show --property ExecMainStatus,NRestarts,ActiveState %s", service
        )
        assert set(shown.split()) == {"ExecMainStatus=78", "NRestarts=0", "ActiveState=failed"}
        log = host.check_output("journalctl --output=cat --unit %s", service)
        assert f"{path} is not obeyed: others may write {path} (mode 0666): run `chmod go-w {path}`" in log
        assert host.run("unitmem check %s", path).rc == 78
        host.check_output("chmod go-w %s && systemctl start %s", path, service)
        host.check_output("chmod 0622 %s", path)
        assert host.run("systemctl reload %s", service).rc != 0
        assert host.check_output("systemctl is-active %s", service) == "active"
    finally:
        host.run("systemctl stop %s; systemctl reset-failed %s; rm -r %s /var/lib/unitmem/e2e-edges",
                 service, service, path)  # fmt: skip
