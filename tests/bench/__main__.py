"""Lets `python tests/bench` do what `tests/bench/run` does."""

from harness.command import main

main()
