"""Runners brought from elsewhere with the tokens that their machines hold."""
