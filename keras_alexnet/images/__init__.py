"""Images: decoding, resizing, preprocessing and the mean image."""
