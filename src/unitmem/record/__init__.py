"""The files that outlive a tick: the state, the intents and the history; only here are unitmem's own files written."""
