"""What har train does."""
