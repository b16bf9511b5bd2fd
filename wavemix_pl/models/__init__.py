"""Plain torch models, without Lightning."""
