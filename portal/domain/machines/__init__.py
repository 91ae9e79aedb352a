"""Runner managers, the machines that use a runner: what they tell, heartbeats, which are silent."""
