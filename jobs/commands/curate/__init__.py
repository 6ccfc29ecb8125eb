"""What curate does."""
