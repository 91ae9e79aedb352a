"""Registration tokens, the old way: the tokens, the switches, and registering with them."""
