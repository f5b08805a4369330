"""`python -m automoe`, for torchrun."""

from automoe.cli.main import main

main()
