"""Vision-language engines behind one small interface (`models.vlm.base`)."""
