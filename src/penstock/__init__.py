"""Penstock: real-time personalization for email campaigns."""
