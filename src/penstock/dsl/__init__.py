"""What authors write in their project files."""
