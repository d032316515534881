"""The page: draw a digit, see what the server sees, get the answer. Its scripts (client/web/page) run in the browser; this serves them."""
