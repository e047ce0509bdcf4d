"""The README and the cookbook: what they show is printed, and their commands work, in a guest."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from documents import PAGES, blocks

AS_USER = "sudo -u vagrant XDG_RUNTIME_DIR=/run/user/$(id -u vagrant)"
README = blocks(PAGES["README.md"])
COOKBOOK = blocks(PAGES["docs/cookbook.md"])

STAND_INS = (
    *("api@1.service", "celery.service", "gunicorn@1.service", "app.service", "postgresql@17-main.service"),
    "worker@1.service",
    *("docker-3f2a81c5d09e.scope", "libpod-77c0ffee.scope", "libpod-conmon-77c0ffee.scope"),
)
"""What the recipes' patterns match."""
SESSION = f"{AS_USER} systemctl --user"


@pytest.fixture
def web(host, unit):
    """The units of the README, and its policy, with spans that a test can wait for."""
    text = next(block.text for block in README if block.language == "yaml")
    for span, shorter in (("1min", "6s"), ("30s, do", "3s, do"), ("10s, do", "1s, do")):
        assert span in text
        text = text.replace(f"for: {span}", f"for: {shorter}")
    host.check_output("printf %%s %s >/etc/unitmem/web.yaml", text)
    host.check_output("systemctl start unitmem@web.service")
    unit("steady", "--size", "60M", name="web@2.service", MemoryMax="200M", MemorySwapMax="0")
    unit(
        *("leak", "--start", "120M", "--rate", "4M/s", "--max", "190M"),
        name="web@1.service",
        MemoryMax="200M",
        MemorySwapMax="0",
    )
    yield
    host.run("systemctl disable --now unitmem@web.service; rm -rf /etc/unitmem/web.yaml /var/lib/unitmem/web")


@pytest.mark.suites("trixie")
def test_the_readme_shows_what_is_printed(host, follower, web):
    # before the policy has stopped what they look at
    for line in next(block for block in README if block.section == "Look").text.splitlines():
        command = re.split(r" {2,}", line)[0]
        shell = f"{AS_USER} {command}" if "--user" in command else command
        assert host.run(shell).rc == 0, command
    follower.follow(
        README, before={"journalctl": lambda: host.check_output("systemctl restart web@1.service")}
    )


@pytest.fixture
def stand_ins(host):
    """Units that do nothing, by the names that the recipes govern; the recipes themselves, as the package has them."""
    for name in STAND_INS:
        kind = "--scope" if name.endswith(".scope") else "--service-type=exec"
        slice_ = "batch.slice" if name == "app.service" else "system.slice"
        command = f"systemd-run --quiet {kind} --slice={slice_} --unit=%s sleep infinity"
        host.check_output(f"({command} </dev/null >/dev/null 2>&1 &)", name)
    host.check_output("cp /usr/share/doc/unitmem/examples/*.yaml /etc/unitmem/")
    yield
    host.run(f"systemctl disable --now unitmem@leaky-service.service; systemctl stop {' '.join(STAND_INS)}")
    host.run("rm -rf /etc/unitmem/*.yaml /var/lib/unitmem/leaky-service /tmp/other.yaml")


@pytest.fixture
def session(host, follower):
    """A follower who is a person with a session, and a browser in it."""
    host.check_output("loginctl enable-linger vagrant && systemctl start user@$(id -u vagrant).service")
    host.check_output(
        f"{AS_USER} sh -c 'mkdir -p ~/.config/unitmem && cp /usr/share/doc/unitmem/examples/desktop.yaml ~/.config/unitmem/'"
    )
    host.check_output(f"{AS_USER} systemd-run --user --quiet --unit=app-firefox-1.service sleep infinity")
    yield replace(follower, directory="/home/vagrant", shell=f"{AS_USER} bash -c %s")
    host.run(f"{SESSION} disable --now unitmem@desktop.service; {SESSION} stop app-firefox-1.service")
    host.run("cd /home/vagrant && rm -rf .config/unitmem .config/systemd .local/state/unitmem")


@pytest.mark.suites("trixie")
def test_the_cookbooks_commands_work(host, follower, stand_ins, session, eventually):
    """On a machine where the patterns match something, nothing is doubted; each command says that it is done."""
    for name in STAND_INS:
        eventually(lambda name=name: host.run("systemctl is-active %s", name).rc == 0, f"{name} runs")
    follower.paste("cd /etc/unitmem && unitmem check --strict $(ls | grep -v -e desktop -e oomd)")
    # the guest has no swap, and that is all that is doubted of these
    told = json.loads(host.run("cd /etc/unitmem && unitmem check --json *oomd.yaml").stdout)
    assert {problem["code"] for problem in told["problems"]} == {"no-swap"}
    recipe = [block for block in COOKBOOK if block.section == "From a recipe to your machine"]
    (morning,) = (block for block in recipe if "unitmem replay" in block.text)
    follower.follow(recipe[: recipe.index(morning)])
    # a night is not over yet, so that there is no leak over half an hour to judge, which replay says
    assert "judged in 0 of" in follower.paste(morning.text, may_fail=True)
    follower.follow(recipe[recipe.index(morning) + 1 :])
    session.follow([block for block in COOKBOOK if block.section == "Your own session"])
    assert "app-firefox-1.service by policy browser-tab" in session.paste("unitmem status --user desktop")
