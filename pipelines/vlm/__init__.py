"""Clips to captions and answers, and their scores."""
