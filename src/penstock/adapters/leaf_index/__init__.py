"""Where the index of the log by leaf is kept."""
