"""The vocabulary of MicroG-Bench: what a clip, a box, a label and a run are, and how they are stored.

Nothing in this package imports torch or Ray.
"""

__version__ = "0.1.0"
