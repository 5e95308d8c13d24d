"""What writes values as a schema says."""
