"""The page: draw a digit, see what the server sees, and get the answer. Served by the client's own process, to this machine only."""
