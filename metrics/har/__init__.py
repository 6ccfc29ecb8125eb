"""Metrics of action recognition: protocols, detection and multi-label scores, findings."""
