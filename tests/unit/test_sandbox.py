"""What the service's capabilities are for, tried with these and no others; the rest of the sandbox takes a guest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = (Path(__file__).parents[2] / "units/unitmem@.service").read_text()
CAPABILITIES = re.findall(r"CAP_(\w+)", re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT, re.MULTILINE)[0])
OTHER_USER = 65534
IN_A_CGROUP = """
import sys
from pathlib import Path
from unitmem.kernel.cgroup import Cgroup
with Cgroup("/delegated", Path(sys.argv[1])) as cgroup:
    cgroup.reclaim(4096)
    print(cgroup.current())
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_files_of_cgroups_that_belong_to_a_user_can_be_read_and_written(tmp_path):
    """A user's own memory.reclaim has mode 0200, and a user may close a cgroup to all others."""
    directory = tmp_path / "delegated"
    directory.mkdir()
    (directory / "memory.current").write_text("4096\n")
    (directory / "memory.reclaim").touch()
    for path, mode in (
        (directory / "memory.reclaim", 0o200),
        (directory / "memory.current", 0o400),
        (directory, 0o700),
    ):
        path.chmod(mode)
        os.chown(path, OTHER_USER, OTHER_USER)
    kept = ",".join(("-all", *(f"+{name.lower()}" for name in CAPABILITIES)))
    done = subprocess.run(
        [
            *("setpriv", f"--bounding-set={kept}", "--inh-caps=-all", "--ambient-caps=-all"),
            *(sys.executable, "-c", IN_A_CGROUP, tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "4096\n"), done.stderr
    assert (directory / "memory.reclaim").read_text() == "4096"
