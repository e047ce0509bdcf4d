"""What a policy would do, and what in it can hardly be meant; nothing is acted on."""
