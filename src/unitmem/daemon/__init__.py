"""The loop of `unitmem watch`."""
