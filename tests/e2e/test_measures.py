"""What `unreclaimable` is, held against the kernel: it is what is left when the kernel has reclaimed all that it can."""

from __future__ import annotations

import json

import pytest

M = 2**20
HELD = 16 * M
KINDS = ("anon", "tmpfs", "cache", "locked", "sockets", "pagetables", "percpu", "hugepages")
CHARGED = "memory_hugetlb_accounting"
"""The mount option of cgroup v2 (Linux 6.6) by which cgroups are charged for huge pages."""
PAGES = 8

# asked for too much, the kernel takes all that it finds, and says EAGAIN; what was mapped is taken at the second look
RECLAIM = """
for kind in {kinds}; do
    cd /sys/fs/cgroup/system.slice/e2e-hold-$kind.service || exit
    for look in 1 2 3 4; do echo 1G >memory.reclaim; done 2>/dev/null
    echo $kind $(cat memory.current) $(sed -n 's/^slab_reclaimable //p' memory.stat) $(sed -n 's/^percpu //p' memory.stat)
done
"""


@pytest.fixture(scope="module")
def huge_pages(host):
    """Whether cgroups are charged for huge pages, of which some are set aside: where the kernel can, they are."""
    before = host.check_output("findmnt --noheadings --output OPTIONS /sys/fs/cgroup")
    is_charged = host.run(f"mount -o remount,{before},{CHARGED} /sys/fs/cgroup").rc == 0
    count = host.check_output(
        "echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory; echo %s >/proc/sys/vm/nr_hugepages;"
        " cat /proc/sys/vm/nr_hugepages",
        str(PAGES),
    )
    assert int(count) == PAGES
    yield is_charged
    host.check_output(f"echo 0 >/proc/sys/vm/nr_hugepages; mount -o remount,{before} /sys/fs/cgroup")


@pytest.fixture(scope="module")
def looks(host, eventually, huge_pages):
    """Return (measures by kind, what is left after reclaim by kind, `show --json` of the one with huge pages).

    Without percpu where the kernel charges nobody for it: some don't for what is allocated with a BPF map.
    """
    units = [f"e2e-hold-{kind}.service" for kind in KINDS]
    host.check_output(
        f"for kind in {' '.join(KINDS)}; do systemd-run --quiet --no-block --unit=e2e-hold-$kind"
        " --property=Type=notify --property=MemorySwapMax=0 --property=MemoryAccounting=yes"
        " /usr/local/lib/unitmem-workloads/hold $kind; done"
    )
    try:
        eventually(
            lambda: (
                host.run(f"systemctl is-active {' '.join(units)}").stdout.split() == ["active"] * len(units)
            ),
            "each holds its kind of memory",
        )
        shown = json.loads(host.check_output("unitmem list --json 'e2e-hold-*.service'"))["units"]
        huge = json.loads(host.check_output("unitmem show --json e2e-hold-hugepages.service"))
        left = host.check_output(RECLAIM.format(kinds=" ".join(KINDS)))
    finally:
        host.run("systemctl stop 'e2e-hold-*.service'; systemctl reset-failed 'e2e-hold-*.service'")
    measures = {
        row["unit"].removeprefix("e2e-hold-").removesuffix(".service"): row["measures"] for row in shown
    }
    kept = {}
    for kind, current, slab, percpu in (line.split() for line in left.splitlines()):
        if kind == "percpu" and int(percpu) < HELD / 2:
            del measures[kind]
        else:
            kept[kind] = int(current) - int(slab)  # which reclaim never empties
    return measures, kept, huge


@pytest.mark.parametrize("kind", KINDS)
def test_unreclaimable_is_what_is_left_after_reclaim(looks, kind):
    measures, left, _ = looks
    if kind not in measures:
        pytest.skip("this kernel charges no unit for it")
    assert measures[kind]["unreclaimable"] == pytest.approx(left[kind], rel=0.05, abs=4 * M)


def test_every_kind_counts_but_page_cache(looks, huge_pages):
    measures, _, _ = looks
    without = {"cache"} if huge_pages else {"cache", "hugepages"}
    most = max(measures[kind]["unreclaimable"] for kind in without)
    for kind in measures.keys() - without:
        assert measures[kind]["unreclaimable"] > HELD
        assert measures[kind]["unreclaimable"] > most + HELD / 2
        assert measures[kind]["footprint"] == measures[kind]["unreclaimable"]


def test_huge_pages_set_aside_are_the_machines_memory_only_where_they_are_charged(looks, huge_pages):
    shown = looks[2]
    aside = 0 if huge_pages else PAGES * 2 * M
    assert shown["measures"]["limit"] == shown["host"]["total"] - aside
    assert shown["limit_set_by"] == "host"


def test_huge_pages_are_in_uss_and_in_no_pss(looks):
    (process,) = looks[2]["processes"]
    assert process["hugetlb"] == HELD
    assert process["pss"] < HELD < process["uss"]
