"""What `microg data push` and `microg data pull` do."""
