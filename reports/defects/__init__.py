"""Known defects of published runs, shown from data."""
