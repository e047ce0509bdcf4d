"""Policies, and their decisions about a sample; only here is it decided. Pure: no clock, no files, no bus."""
