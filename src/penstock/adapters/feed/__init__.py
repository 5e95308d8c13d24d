"""Topics that other systems consume."""
