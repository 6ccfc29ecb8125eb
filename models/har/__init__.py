"""Action recognition: backbones, checkpoints, the geometry of clips, optimisation."""
