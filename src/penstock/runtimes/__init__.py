"""Loops around flows.process."""
