"""The policy file of a watch, which is obeyed only where nobody else may change it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unitmem.errors import PolicyFileError
from unitmem.kernel.ownership import distrust, trusted_owners
from unitmem.policy.model import observing
from unitmem.policyfile import reader
from unitmem.policyfile.reader import Checked


def load_checked(path: Path, *, observe: bool) -> Checked:
    """Return the policies in the file `path`; with `observe`, all of them in observe mode.

    Raises:
        PolicyFileError: the file can't be read, has mistakes, or others may change it.
    """
    # before it is opened: what nobody may change now is what is opened then
    if (why := distrust(path, trusted_owners())) is not None:
        raise PolicyFileError(f"{path} is not obeyed: {why}")
    checked = reader.load(path)
    return replace(checked, file=observing(checked.file)) if observe else checked
