"""Raw footage to an annotated dataset."""
