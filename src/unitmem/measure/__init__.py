"""Measures of units, processes and the host, and samples of them; only here are the names of measures defined."""
