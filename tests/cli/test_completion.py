"""What the shell offers: units by name, fields to sort by, and silence where nothing can be asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unitmem.cli import application
from unitmem.errors import BusError
from unitmem.unit import ManagerKind


@pytest.fixture
def complete(fake, monkeypatch, capsys):
    """complete("list w"): the words that are offered at the end of a command line, as fish asks for them."""

    def complete(line, machine=fake.machine):
        monkeypatch.setenv("_UNITMEM_COMPLETE", "complete_zsh")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"unitmem {line}")
        with pytest.raises(SystemExit):
            application()([], prog_name="unitmem", obj=machine)
        return capsys.readouterr().out

    return complete


def test_units_are_offered(complete, fake):
    for verb in ("list", "show"):
        offered = complete(f"{verb} ")
        assert "web.service" in offered
        assert "The web, all of it" in offered
        assert "system.slice" in offered
        assert "ghost.service" not in offered  # only mentioned by others
        assert "basic.target" not in offered  # has no memory
    assert "db.service" not in complete("show w")
    assert fake.manager.asked[-1] is ManagerKind.SYSTEM
    assert "web.service" in complete("show --user w")
    assert fake.manager.asked[-1] is ManagerKind.USER


def test_fields_are_offered(complete):
    assert "workingset" in complete("list --sort w")


def test_instances_are_offered_and_the_units_that_they_watch(complete, serve):
    entries = {
        "units": [{"unit": "web.service"}, {"unit": "api.service"}],
        "cooling": [{"unit": "was.service"}],
    }
    serve("leaks", status=entries)
    serve("late", status={})
    for verb in ("status", "reset"):
        assert "leaks" in complete(f"{verb} le")
        assert "late" not in complete(f"{verb} le")
        assert "late" in complete(f"{verb} ")
    assert "api.service" in complete("reset leaks ")
    offered = complete("reset unitmem@leaks.service w")
    assert "web.service" in offered
    assert "was.service" in offered
    assert "api.service" not in offered
    assert complete("reset late ") == complete("reset none ") == complete("reset ../none ")


def test_policies_are_files(complete):
    """Nothing is offered, which leaves it to the shell, and that offers files."""
    assert "web.service" not in complete("check ")
    assert "web.service" not in complete("watch ")


def test_a_bus_that_is_away_is_silence(complete, fake, capsys):
    def connect(kind):
        raise BusError("the system bus can't be reached")

    assert "unitmem" not in complete("show w", replace(fake.machine, connect=connect))
    assert capsys.readouterr().err == ""
