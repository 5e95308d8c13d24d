"""Endpoints for tests of a project's tracking: what was accepted and refused, and whom it makes."""
