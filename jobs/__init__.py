"""Doors: each script is a command of `microg` and runs as `python jobs/<name>.py`; cli and common serve them."""
