"""The HTTP edge that gives content out: profiles, decisions, emails, and what mail clients do."""
