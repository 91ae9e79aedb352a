"""The demo: groups, people, runners, machines and jobs in every state, to look at and to try things on."""
