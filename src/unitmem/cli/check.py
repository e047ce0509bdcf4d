"""unitmem check"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from unitmem.cli.machine import Machine
from unitmem.cli.options import Json, User
from unitmem.errors import BusError, NoSuchUnitError, PolicyFileError, Problem, UnitmemError
from unitmem.kernel.ownership import distrust, trusted_owners
from unitmem.measure.sample import Sample
from unitmem.policy.actions import Restart
from unitmem.policy.model import PolicyFile
from unitmem.policyfile import reader as config
from unitmem.policyfile.nodes import PolicyProblemsError
from unitmem.policyfile.reader import Checked
from unitmem.report.document import emit
from unitmem.report.failure import say, tell
from unitmem.simulate.lint import review
from unitmem.text import plural, printable
from unitmem.unit import StartLimit

SERVICE_DIRECTORY = Path("/etc/unitmem")
"""The directory of the files that the service reads: what it would refuse is a mistake there."""
UNSAFE = "unsafe-file"
"""The code of the warning about a file that others may change."""


def check_policies(
    context: typer.Context,
    policies: Annotated[list[Path], typer.Argument(metavar="POLICY...", help="Policy files.")],
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings count: status 1.")] = False,
    user: User = False,
    as_json: Json = False,
) -> None:
    """Check policy files, and tell every mistake as FILE:LINE:COLUMN.

    Warnings are about what may run and can hardly be meant: a stop at the first spike, steps in the
    wrong order and, where the service manager can be asked, a pattern that matches no unit here, or
    a threshold that no unit here comes to. unitmem.yaml(5) lists them by their codes.

    The comment "# unitmem: ignore=CODE" silences one, at its line or above it. Status 78 if a file
    has a mistake; warnings don't count unless --strict is given.
    """
    good: dict[Path, Checked] = {}
    bad: dict[Path, PolicyFileError] = {}
    for path in policies:
        try:
            good[path] = _load(path)
        except PolicyFileError as error:
            bad[path] = error
    files = [checked.file for checked in good.values()]
    sample, start_limits = _look(Machine.of(context), files, user=user)
    doubts = {
        path: (*_distrusted(path), *review(checked, sample, start_limits)) for path, checked in good.items()
    }
    if as_json:
        findings = {path: _doubts(path, doubts[path]) for path in good}
        findings |= {path: _mistakes(path, error) for path, error in bad.items()}
        emit({"problems": [finding for path in dict.fromkeys(policies) for finding in findings[path]]})
    else:
        for path in dict.fromkeys(policies):
            if path in bad:
                tell(bad[path])
            else:
                _print(path, good[path].file, doubts[path])
    if bad:
        raise typer.Exit(PolicyFileError.exit_status)
    # who may change a draft is no fault of what it says; in the service's directory it is a mistake, as above
    if strict and any(doubt.code != UNSAFE for found in doubts.values() for doubt in found):
        raise typer.Exit(UnitmemError.exit_status)


def _load(path: Path) -> Checked:
    """Return the policies in a file; of one that the service reads, others must not be able to change it.

    Raises:
        PolicyFileError: the file can't be read, has mistakes, or is one that the service doesn't obey.
    """
    if path.absolute().parent == SERVICE_DIRECTORY and (why := distrust(path, {0})) is not None:
        raise PolicyFileError(f"{path} is not obeyed: {why}")
    return config.load(path)


def _distrusted(path: Path) -> Iterator[Problem]:
    """Yield a warning, which no comment silences, if a watch of this user would not obey the file."""
    if (why := distrust(path, trusted_owners())) is not None:
        yield Problem(1, 1, f"`unitmem watch` does not obey this file: {why}", UNSAFE)


def _mistakes(path: Path, error: PolicyFileError) -> list[dict[str, Any]]:
    """Return the mistakes of a file as `--json` prints them; without line and column if it can't be read."""
    finding = {"file": str(path), "severity": "error"}
    if isinstance(error, PolicyProblemsError):
        return [{**finding, **asdict(problem)} for problem in error.problems]
    return [{**finding, "line": None, "column": None, "message": str(error), "code": None}]


def _doubts(path: Path, warnings: Iterable[Problem]) -> list[dict[str, Any]]:
    return [{"file": str(path), "severity": "warning", **asdict(warning)} for warning in warnings]


def _print(path: Path, file: PolicyFile, warnings: Iterable[Problem]) -> None:
    for warning in warnings:
        say(f"{path}:{warning.line}:{warning.column}: warning: {warning.message} [{warning.code}]")
    typer.echo(f"{printable(str(path))}: ok, {_summary(file)}")


def _look(
    machine: Machine, files: Iterable[PolicyFile], *, user: bool
) -> tuple[Sample | None, dict[str, StartLimit] | None]:
    """Return a sample of every loaded unit that a pattern of `files` matches, and the start limits of those they restart.

    Both are None where they can't be had.
    """
    policies = [policy for file in files for policy in file.policies]
    restarting = [
        policy for policy in policies if any(isinstance(step.action, Restart) for step in policy.steps)
    ]
    patterns = sorted({pattern for policy in policies for pattern in policy.units})
    if not patterns:
        return None, None
    limits = {}
    try:
        with machine.system(user=user) as system:
            # the warnings go by names and limits
            sample = system.sample(
                *patterns, measures={"limit"}, include_all=True, skip_missing=True, brief=True
            )
            for unit in sample.units.values():
                if any(policy.governs(unit.unit) for policy in restarting):
                    with suppress(NoSuchUnitError, BusError):
                        limits[unit.name] = system.manager.start_limit(unit.name)
    except UnitmemError:
        return None, None
    return sample, {name: limit for name, limit in limits.items() if limit is not None}


def _summary(file: PolicyFile) -> str:
    policies, steps = len(file.policies), sum(len(policy.steps) for policy in file.policies)
    return f"{plural(policies, 'policy', 'policies')}, {plural(steps, 'step')}"
