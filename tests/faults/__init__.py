"""Whatever fails, nothing acknowledged is lost and nothing happens twice: faults under load."""
