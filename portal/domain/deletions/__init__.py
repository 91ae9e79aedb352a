"""What was deleted: kept for a while, restored, or gone for good."""
