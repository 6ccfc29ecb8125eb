"""Training on Ray: the plan of samples, their stream, the workers' loop, and what is kept on disk."""
