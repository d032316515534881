"""How many answers give a network away: attacks by queries on a network's own answers."""
