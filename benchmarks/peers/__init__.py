"""Other systems on this machine, each in an environment of its own; see README.md."""
