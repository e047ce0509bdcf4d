"""The kernel's view of cgroups, processes and the machine; only here are /proc and cgroupfs read."""
