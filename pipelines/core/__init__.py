"""What every pipeline shares: the Ray session, stages, attempts, files of rows, telemetry."""
