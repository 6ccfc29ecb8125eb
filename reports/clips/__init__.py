"""Clips, captions and answers as pictures and cards."""
