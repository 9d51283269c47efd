"""`python -m tunelater`."""

from tunelater.cli import main

main()
