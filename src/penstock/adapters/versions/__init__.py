"""Where definitions versions are kept: one adapter a product."""
