"""What folds without Python, where it is built."""
