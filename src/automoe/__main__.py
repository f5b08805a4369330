"""`python -m automoe`, for torchrun."""

from automoe.cli import main

main()
