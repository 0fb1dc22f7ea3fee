"""The policy in force in one worker: a generation, the register of devices, the views of this moment, and the memos of
ready answers.

What changes at run time is replaced whole: `swap` puts a new generation in place by one assignment between two batches,
`turn` makes new views when an order's moment has come, `enrol` takes another register. The first two forget every ready
answer, so that nothing said under the old policy is said again; the last need not, since what is said to a recognised
device is never learned.
"""

from dataclasses import dataclass, replace

from resolver.engine.ready import SaidBefore
from resolver.hot._batch_cy import ViewMemo
from resolver.policy.client import Client
from resolver.policy.generation import Generation, View
from resolver.policy.register import Means, Register, Unknown, identify, write_register

_MAX_SOURCES = 65536  # client addresses whose memo is known; with more, the table starts anew
_MAX_PLACES = 8192  # clients of which it is known by heart where they belong; with more, it is found out anew
_MAX_VIEWS = 4096  # as many as groups, unless exemptions or rules on client addresses set many clients apart

NO_DEVICES = Register(memoryview(write_register((), 0)))


@dataclass(frozen=True, slots=True)
class IdentityTerms:
    """How devices are told apart.

    Attributes:
        zones: The names of this resolver, in lower case without a dot at the end.
        unknown: The group of those who show a token or certificate that is not known; None: they are refused.
    """

    zones: tuple[str, ...] = ()
    unknown: str | None = None


@dataclass(slots=True)
class Standing:
    """What a client counts as. Nothing changes it; it is not frozen because one is made for each query.

    Attributes:
        client: The client, with the device that it was recognised as.
        group: Number of its group, or -1.
        pocket: Number of its pocket, or -1.
        number: Of the device, or -1.
        stranger: By what means it said in vain who it is.
        refusal: Why it gets no answer; empty where it does.
    """

    client: Client
    group: int
    pocket: int
    number: int = -1
    stranger: Means | None = None
    refusal: str = ""


class PolicyInForce:
    """What to hold a client to, now."""

    def __init__(
        self, generation: Generation, at: float, ready_answers: int, identity: IdentityTerms | None = None
    ) -> None:
        """Put a first generation in force, with a register that knows no device.

        Args:
            generation: The compiled policy.
            at: Unix seconds.
            ready_answers: How many ready answers all views together may hold.
            identity: How devices are told apart; None: no token in a name, and who shows what is unknown is refused.
        """
        self._sources: dict[str | None, dict[bytes, ViewMemo]] = {}
        self._ready_answers = ready_answers
        self._identity = identity or IdentityTerms()
        self.register = NO_DEVICES
        self.changes = 0  # how often all views and memos were let go
        self.said = SaidBefore(ready_answers)
        self.swap(generation, at)

    def swap(self, generation: Generation, at: float) -> None:
        """Put a generation in force in place of the one before."""
        self.generation = generation
        self._views: dict[tuple[int, int, str], View] = {}
        self._places: dict[tuple[str | None, bytes], tuple[int, int, str]] = {}
        self._before_count = 0  # answers that may be learned before it is counted again how many are held
        self._memos: dict[View, ViewMemo] = {}
        self.until = generation.next_transition(at)
        self.said.forget()
        self._forget_sources()

    def enrol(self, register: Register) -> None:
        """Tell devices apart by a register in place of the one before."""
        self.register = register

    def turn(self, at: float) -> bool:
        """Let whatever has its moment begin or end: orders, exemptions, rules; whether there was any."""
        if at < self.until:
            return False
        self.swap(self.generation, at)
        return True

    def holds(self, view: View, at: float) -> bool:
        """Whether a view that was in force is so still."""
        return view.generation is self.generation and at < view.until

    def standing_of(self, client: Client, at: float) -> Standing:
        """Find out what a client counts as: by what it shows of itself, else by its listener, else by its network.

        Who shows something that holds is answered wherever it asks from; everybody else from allowed networks alone.
        """
        generation = self.generation
        if client.device:
            client = replace(client, device="")  # as it was recognised before; it may be so no longer
        group, pocket, refusal = self._place_of(client)
        found = identify(client.credentials, self.register, self._identity.zones, at)
        if found is None:
            return Standing(client, group, pocket, refusal=refusal)
        if isinstance(found, Unknown):
            if self._identity.unknown is None:
                return Standing(client, -1, pocket, stranger=found.means, refusal="device is not known")
            group = generation.number_of_group(self._identity.unknown)
            refusal = self._stranger_to_us(client)
            if group < 0:
                refusal = "the group of unknown devices is not configured"
            return Standing(client, group, pocket, stranger=found.means, refusal=refusal)
        known = replace(client, device=found.name)
        group = generation.number_of_group(found.group)
        # Without its group nothing says what it is held to; to let it pass would be the one wrong answer.
        refusal = "" if group >= 0 else "the device's group is not configured"
        return Standing(known, group, pocket, found.number, refusal=refusal)

    def _stranger_to_us(self, client: Client) -> str:
        return "" if self.generation.is_allowed(client.address) else "client address is not allowed"

    def _place_of(self, client: Client) -> tuple[int, int, str]:
        """What a client counts as by listener and network: group, pocket, and why it gets no answer."""
        key = client.listener, client.address
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= _MAX_PLACES:
                self._places.clear()
            generation = self.generation
            group, pocket = generation.client_of(client.address)
            if client.listener is not None:
                group = generation.number_of_group(client.listener)
            refusal = self._stranger_to_us(client)
            if client.listener is not None and group < 0:
                refusal = "the listener's group is not configured"
            place = self._places[key] = group, pocket, refusal
        return place

    def view_of(self, standing: Standing, at: float) -> View:
        """The view of a client by its standing."""
        device = standing.client.device
        key = standing.group, standing.pocket, device if device in self.generation.named_devices else ""
        view = self._views.get(key)
        if view is None:
            if len(self._views) >= _MAX_VIEWS:
                self._forget()
            view = self._views[key] = View(self.generation, key[0], at, key[1], key[2])
        return view

    def _forget(self) -> None:
        self._views.clear()
        self._memos.clear()
        self.said.forget()
        self._forget_sources()

    def _forget_sources(self) -> None:
        self.changes += 1
        # Emptied in place: a batch under way may hold one.
        for sources in self._sources.values():
            sources.clear()

    def sources_of(self, listener: str | None) -> dict[bytes, ViewMemo]:
        """The memos of those who come by a listener of a group (None: of none), by their address."""
        sources = self._sources.get(listener)
        if sources is None:
            sources = self._sources[listener] = {}
        return sources

    def memo_of(self, client: Client, view: View) -> ViewMemo | None:
        """The memo that the client's batches are answered from; None where it has none, or the view is out of force.

        An answer that was under way while the policy changed may be given, but not learned. What was said to one who
        showed something of itself is not learned either: whether that still holds is asked each time.
        """
        if not self._ready_answers or client.credentials is not None or view.generation is not self.generation:
            return None
        group, pocket, _ = self._place_of(client)
        if self._views.get((group, pocket, "")) is not view:
            return None
        memo = self._memos.get(view)
        if memo is None:
            # A rule on the root has a say in every name, and the table does not know it.
            table = self.generation.table if self.generation.root < 0 else None
            memo = self._memos[view] = ViewMemo(self._ready_answers, table)
        self.learned(1)
        sources = self.sources_of(client.listener)
        if client.address not in sources:
            if len(sources) >= _MAX_SOURCES:
                sources.clear()
            sources[client.address] = memo
        return memo

    def view_of_memo(self, memo: ViewMemo) -> View | None:
        """Whose answers a memo holds; None where it is out of force."""
        return next((view for view, one in self._memos.items() if one is memo), None)

    def learned(self, count: int) -> None:
        """Learn that memos learned so many answers on their own."""
        self._before_count -= count
        if self._before_count <= 0:
            self._make_room()

    def _make_room(self) -> None:
        """Let answers go until there is room for some: with many memos, counting takes more time than learning."""
        most = self._ready_answers
        # What was not asked for since its memo's last turn goes first. Two turns empty a memo, so this comes to an end.
        while (held := self.ready_answers()) >= most - most // 256:
            max(self._memos.values(), key=lambda one: (one.old_half(), one.size())).halve()
        self._before_count = (most - held) // 4  # each counts as three at most, since it was sent over UDP

    def ready_answers(self) -> int:
        """How many ready answers are held."""
        return sum(memo.size() for memo in self._memos.values())
