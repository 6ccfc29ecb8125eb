"""Actions of people: truth, predictions, and the files that hold them."""
