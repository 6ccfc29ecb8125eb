"""What har transfer does."""
