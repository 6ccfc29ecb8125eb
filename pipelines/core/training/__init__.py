"""What every training on Ray Train shares: the plan of samples, the group of workers, and what is kept on disk."""
