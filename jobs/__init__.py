"""Entry points: each runs as `python jobs/<name>.py` and is mounted in the `microg` command."""
