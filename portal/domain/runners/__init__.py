"""Runners: the configuration that people create, its tokens, its rules, and lists of them."""
