"""The library's guard for one process, and a program's own memory; neither systemd nor a bus is needed."""
