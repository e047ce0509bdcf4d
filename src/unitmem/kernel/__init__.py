"""What the kernel says of cgroups, processes and the machine; only here are /proc and cgroupfs read."""
