"""What outlives a tick: the state and the history; only here are unitmem's own files written."""
