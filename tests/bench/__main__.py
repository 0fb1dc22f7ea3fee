"""Lets `python tests/bench` do what `tests/bench/run` does."""

import sys

from harness import command, encrypted, names, workers

_OTHERS = {"names": names.main, "encrypted": encrypted.main, "workers": workers.main}

_other = _OTHERS.get("".join(sys.argv[1:2]))
sys.exit(command.main(sys.argv[1:]) if _other is None else _other(sys.argv[2:]))
