"""What curation computes on a clip: motion, scene cuts, person tracks, published boxes."""
