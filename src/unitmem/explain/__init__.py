"""Who ended a unit; only here is the journal read."""
