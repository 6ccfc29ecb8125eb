"""The demo: drawn people, tiny models, a tiny language model and its trainer; nothing depends on it but its own
commands.
"""
