"""Engines that answer: the registry, and those that run a model on our own hardware."""
