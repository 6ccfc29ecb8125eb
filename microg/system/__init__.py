"""This machine and what it needs: hardware, installed packages, weights, downloads."""
