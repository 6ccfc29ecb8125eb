"""What vlm generate does."""
