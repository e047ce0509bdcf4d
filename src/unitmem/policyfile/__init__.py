"""The policy language, its reader and its JSON Schema; only here is YAML read."""
