"""A limit for one process, and a program's own memory; needs neither systemd nor a bus."""
