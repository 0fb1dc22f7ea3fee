"""`python -m resolver` and the installed command `interdict`."""

from resolver.cli.main import main

if __name__ == "__main__":
    main()
