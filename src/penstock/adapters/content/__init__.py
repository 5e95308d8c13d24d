"""Template engines and HTML tools."""
