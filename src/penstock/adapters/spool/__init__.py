"""What is kept on this machine until the log takes it."""
