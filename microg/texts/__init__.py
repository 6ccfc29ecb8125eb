"""Captions, questions and answers: items, references, predictions, and the files that hold them."""
