"""Directories that play /sys/fs/cgroup and /proc, built file by file by the test that reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class CgroupTree:
    """A cgroup v2 mount; a cgroup has the files that it is given, and no others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def add(self, path: str, files: Mapping[str, object] | None = None, pids: Iterable[int] = ()) -> None:
        """A cgroup below the ones that are there, with these files (by name) and processes."""
        directory = self.root / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in (files or {}).items():
            (directory / name).write_text(f"{content}\n")
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def remove(self, path: str) -> None:
        shutil.rmtree(self.root / path.lstrip("/"))


class ProcTree:
    """A /proc of the processes that are added to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def add(
        self,
        pid: int,
        name: str = "worker",
        *,
        state: str = "S",
        start_time: int = 100,
        rss: int = 0,
        rollup: Mapping[str, int] | None = None,
        command: bytes = b"",
        cgroup: str = "/",
        parent: int = 0,
        threads: int = 1,
    ) -> None:
        """A process with `rss` bytes, and in smaps_rollup what `rollup` gives in bytes; None leaves it out."""
        directory = self.root / str(pid)
        directory.mkdir(exist_ok=True)
        stat = f"{pid} ({name}) {state} {parent} {'0 ' * 15}{threads} 0 {start_time} 0 0\n"
        (directory / "stat").write_text(stat)
        (directory / "statm").write_text(f"0 {rss // PAGE_SIZE} 0 0 0 0 0\n")
        (directory / "cmdline").write_bytes(command)
        (directory / "cgroup").write_text(f"0::{cgroup}\n")
        (directory / "smaps_rollup").unlink(missing_ok=True)
        if rollup is not None:
            lines = [f"{key}: {size // 1024:>8} kB\n" for key, size in rollup.items()]
            (directory / "smaps_rollup").write_text(
                "0-1 ---p 00000000 00:00 0    [rollup]\n" + "".join(lines)
            )

    def remove(self, pid: int) -> None:
        shutil.rmtree(self.root / str(pid))


@pytest.fixture
def tree(tmp_path: Path) -> CgroupTree:
    """A cgroup mount with nothing but its root."""
    return CgroupTree(tmp_path / "cgroup")


@pytest.fixture
def proc(tmp_path: Path) -> ProcTree:
    """A /proc without processes."""
    return ProcTree(tmp_path / "proc")
