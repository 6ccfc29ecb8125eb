"""Ray Data graphs over tables of paths."""
