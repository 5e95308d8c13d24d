"""Development pages: a shop to click in, and beside it the email that answers the clicks."""
