"""`python -m ciphershift`: the same as the command `ciphershift`."""

from ciphershift.cli import main

if __name__ == "__main__":
    main()
