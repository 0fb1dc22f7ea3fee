"""Regular expressions over names, all of a zone's matched in one pass by RE2, whose time is linear in the name's length
whatever the expressions are.
"""

from collections.abc import Sequence

import re2


class PatternSet:
    """A zone's patterns."""

    def __init__(self, patterns: Sequence[tuple[str, int]]) -> None:
        """Compile (RE2 expression, number of its rule) pairs.

        Raises:
            ValueError: One can not be compiled, or all together take too much memory.
        """
        self._patterns = patterns
        options = re2.Options()
        options.log_errors = False  # they are raised
        self._set = re2.Set.SearchSet(options)
        try:
            for expression, _ in patterns:
                self._set.Add(expression)
            self._set.Compile()
        except re2.error as error:
            raise ValueError(f"the patterns can not be compiled: {error}") from None

    def match(self, name: str) -> list[tuple[str, int]]:
        """The patterns that match a lower-cased name without its last dot, in their order."""
        return [self._patterns[number] for number in sorted(self._set.Match(name) or ())]
