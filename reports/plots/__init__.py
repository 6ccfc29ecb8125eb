"""Plots: of a dataset, of training, of scores; all in one style."""
