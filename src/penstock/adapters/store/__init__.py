"""Where leaves are kept."""
