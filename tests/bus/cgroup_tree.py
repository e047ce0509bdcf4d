"""A tree of directories in the place of cgroups."""

from __future__ import annotations

import shutil
from pathlib import Path


class CgroupTree:
    """Directories that play cgroups; the files are those that the tests read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, path: str, *pids: int) -> str:
        """A cgroup with these processes; its directory."""
        directory = self.root / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.current").write_text("4096\n")
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return str(directory)

    def add_file(self, path: str, name: str, text: str = "") -> Path:
        """A file more of that cgroup."""
        file = self.root / path.lstrip("/") / name
        file.write_text(text)
        return file

    def remove(self, path: str) -> None:
        shutil.rmtree(self.root / path.lstrip("/"))

    def remake(self, path: str, *pids: int) -> None:
        """Another cgroup under the same path, as after a restart."""
        old = self.root / path.lstrip("/")
        kept = old.rename(self.root / f".{old.name}")  # or its inode number would be used again
        self.make(path, *pids)
        shutil.rmtree(kept)
