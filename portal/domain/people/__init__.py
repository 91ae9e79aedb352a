"""People: accounts, ways to sign in, sessions, access tokens, and what administrators do with them."""
