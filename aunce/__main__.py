"""`python -m aunce`."""

from aunce.cli import main

main()
