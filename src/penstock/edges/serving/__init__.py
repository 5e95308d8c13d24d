"""The HTTP edge that gives content out."""
