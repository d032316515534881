"""What the measurements add up to: a page with tables and figures, comparisons of two runs, and the peers beside us."""
