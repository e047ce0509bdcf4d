"""Actions, performed and followed until their effect is seen; only here is the machine changed."""
