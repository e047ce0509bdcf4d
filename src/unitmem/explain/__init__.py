"""What ended a unit, from the journal; only here is the journal read."""
