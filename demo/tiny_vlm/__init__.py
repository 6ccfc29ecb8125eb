"""A tiny vision-language model, trained from nothing on drawn people."""
