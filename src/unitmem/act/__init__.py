"""Performing actions and verifying their effect; only here is the machine changed."""
