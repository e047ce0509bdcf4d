"""Journal, metrics and status: only here is reported what a watch sees and does."""
