"""Vision-language engines behind one small interface (`microg.models.vlm.base`)."""
