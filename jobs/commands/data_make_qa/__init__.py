"""What data make-qa does."""
