"""What har sweep does."""
