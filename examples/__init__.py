"""Example projects: each folder is a whole Penstock project."""
