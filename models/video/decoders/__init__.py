"""Decoders of clips, one module each, behind one interface; the registry names them."""
