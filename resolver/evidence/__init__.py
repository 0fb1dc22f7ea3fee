"""What was recorded, kept for the auditor."""
