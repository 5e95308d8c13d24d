"""Where counts are exposed."""
