"""The stories, one file each, top to bottom."""
