"""The trail: read, chained, shortened, and what it tells of refusals."""
