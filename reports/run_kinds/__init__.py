"""What a report makes of the runs of each command."""
