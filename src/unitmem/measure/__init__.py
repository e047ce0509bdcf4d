"""Measures of units and of the host, and samples of them; only here are the names of measures defined."""
