"""Whose a pasted secret is: a runner's, a person's, an enrolment key or a scope's registration token."""
