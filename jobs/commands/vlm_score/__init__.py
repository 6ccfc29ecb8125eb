"""What vlm score does."""
