from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode doesn't

from cgroup_tree import CgroupTree
from fake_systemd1 import FakeSystemd1, private_bus

from unitmem.manager.systemd import Manager


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("dbus-daemon") is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs dbus-daemon (Debian: dbus)"))


@pytest.fixture(scope="session")
def bus_address() -> Iterator[str]:
    # a socket's path may have 107 bytes, and pytest's own directories are long
    with tempfile.TemporaryDirectory() as directory, private_bus(Path(directory)) as address:
        yield address


@pytest.fixture(scope="session")
def fake_process(bus_address: str) -> Iterator[FakeSystemd1]:
    fake = FakeSystemd1(bus_address)
    yield fake
    fake.close()


@pytest.fixture
def systemd(fake_process: FakeSystemd1) -> FakeSystemd1:
    """The fake manager, as new."""
    fake_process.reset()
    return fake_process


@pytest.fixture
def cgroups(tmp_path: Path) -> CgroupTree:
    """An empty tree of cgroups."""
    return CgroupTree(tmp_path)


@pytest.fixture
def manager(systemd: FakeSystemd1) -> Iterator[Manager]:
    """The real client, connected to the fake manager."""
    with Manager(address=systemd.address) as manager:
        yield manager
