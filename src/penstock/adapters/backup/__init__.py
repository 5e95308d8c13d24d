"""Taking a data folder as it was at one instant, the places where backups are kept, and putting one back."""
