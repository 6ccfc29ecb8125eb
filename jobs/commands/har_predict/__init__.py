"""What har predict does."""
