"""Who carries an email."""
