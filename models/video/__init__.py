"""Video files: probing, decoding, constant frame rate, trimming, encoding, previews."""
