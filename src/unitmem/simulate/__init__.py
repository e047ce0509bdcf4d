"""What a policy would do, and warnings about it; nothing is acted on."""
