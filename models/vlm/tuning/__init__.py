"""Fine-tuning vision-language models: which parts learn, what they are shown, and merging what they learnt."""
