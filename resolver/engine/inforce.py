"""The policy in force in one worker: a generation, the views of this moment, and the memos of ready answers.

What changes at run time is replaced whole: `swap` puts a new generation in place by one assignment between two batches,
`turn` makes new views when an order's moment has come. Both forget every ready answer, so that nothing said under the
old policy is said again.
"""

from resolver.hot._batch_cy import ViewMemo
from resolver.policy.generation import Generation, View

_MAX_SOURCES = 65536  # client addresses whose memo is known; with more, the table starts anew
_MAX_VIEWS = 4096  # as many as groups, unless exemptions or rules on client addresses set many clients apart


class PolicyInForce:
    """What to hold a client to, now."""

    def __init__(self, generation: Generation, at: float, ready_answers: int) -> None:
        """Put a first generation in force.

        Args:
            generation: The compiled policy.
            at: Unix seconds.
            ready_answers: How many ready answers all views together may hold.
        """
        self.sources: dict[bytes, ViewMemo] = {}
        self._ready_answers = ready_answers
        self.swap(generation, at)

    def swap(self, generation: Generation, at: float) -> None:
        """Put a generation in force in place of the one before."""
        self.generation = generation
        self._views: dict[tuple[int, int], View] = {}
        self._memos: dict[View, ViewMemo] = {}
        self.until = generation.next_transition(at)
        self.sources.clear()

    def turn(self, at: float) -> bool:
        """Let whatever has its moment begin or end: orders, exemptions, rules; whether there was any."""
        if at < self.until:
            return False
        self.swap(self.generation, at)
        return True

    def view_of(self, address: bytes, at: float) -> View:
        """The view of a client by its address (4 or 16 octets)."""
        key = self.generation.client_of(address)
        view = self._views.get(key)
        if view is None:
            if len(self._views) >= _MAX_VIEWS:
                self._forget()
            view = self._views[key] = View(self.generation, key[0], at, key[1])
        return view

    def _forget(self) -> None:
        self._views.clear()
        self._memos.clear()
        self.sources.clear()

    def memo_of(self, address: bytes, view: View) -> ViewMemo | None:
        """The memo that the client's batches are answered from; None where the view is no longer in force.

        An answer that was under way while the policy changed may be given, but not learned.
        """
        if not self._ready_answers:
            return None
        if view.generation is not self.generation or self._views.get(self.generation.client_of(address)) is not view:
            return None
        memo = self._memos.get(view)
        if memo is None:
            # A rule on the root has a say in every name, and the table does not know it.
            table = self.generation.table if self.generation.root < 0 else None
            memo = self._memos[view] = ViewMemo(self._ready_answers, table)
        # What was not asked for since its memo's last turn goes first. Two turns empty a memo, so this comes to an end.
        while self.ready_answers() >= self._ready_answers:
            max(self._memos.values(), key=lambda one: (one.old_half(), one.size())).halve()
        if address not in self.sources:
            if len(self.sources) >= _MAX_SOURCES:
                self.sources.clear()
            self.sources[address] = memo
        return memo

    def ready_answers(self) -> int:
        """How many ready answers are held."""
        return sum(memo.size() for memo in self._memos.values())
