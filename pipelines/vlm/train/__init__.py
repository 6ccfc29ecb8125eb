"""Fine-tuning a vision-language model on Ray Train."""
