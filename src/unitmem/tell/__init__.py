"""Journal, metrics and status; only here is anybody told what a watch sees and does."""
