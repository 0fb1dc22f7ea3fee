"""Lets `python tests/bench` do what `tests/bench/run` does."""

import sys

from harness import command, encrypted, names, workers

if sys.argv[1:2] == ["names"]:
    sys.exit(names.main(sys.argv[2:]))
if sys.argv[1:2] == ["encrypted"]:
    sys.exit(encrypted.main(sys.argv[2:]))
if sys.argv[1:2] == ["workers"]:
    sys.exit(workers.main(sys.argv[2:]))
command.main()
