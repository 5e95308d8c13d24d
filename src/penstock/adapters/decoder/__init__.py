"""What reads records of other producers, one file a format."""
