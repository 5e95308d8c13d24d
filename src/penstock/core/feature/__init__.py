"""The feature algebra: aggregates, windows, tiles, and the plan compiled from definitions."""
