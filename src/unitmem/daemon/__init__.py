"""The loop of `unitmem watch`, and its control socket."""
