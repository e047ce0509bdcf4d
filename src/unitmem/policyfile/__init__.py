"""The policy language, its reader and its schema; only here is YAML read."""
