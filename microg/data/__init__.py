"""What a dataset holds: its tables, ids, labels, splits and statistics."""
