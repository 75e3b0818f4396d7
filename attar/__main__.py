"""`python -m attar`: the command line."""

from attar.cli import main

main()
