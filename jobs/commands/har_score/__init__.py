"""What har score does."""
