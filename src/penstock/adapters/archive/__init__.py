"""Where archives, snapshots and backups are kept."""
