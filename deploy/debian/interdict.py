#!/usr/bin/python3 -I
"""The installed command: program and libraries lie in a folder of their own, which is asked before any other."""

import sys

sys.path.insert(0, "/usr/lib/interdict")

from resolver.__main__ import main

main()
