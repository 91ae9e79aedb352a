"""What the portal costs: figures with targets, each taken in one run on one machine. `make bench` runs them."""
