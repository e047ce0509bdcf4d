"""The service manager over D-Bus, and the units that it runs; only here is pystemd imported."""
