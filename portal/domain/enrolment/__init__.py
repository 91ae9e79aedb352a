"""Enrolment keys: secrets that create runners from one template, and nothing else."""
