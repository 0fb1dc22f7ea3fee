"""Turns: one a round, in the order in which they were asked for."""

import asyncio
import itertools

from resolver.transport.turns import Turns


def test_one_turn_a_round_and_in_order() -> None:
    """Whatever else the loop has to do is done between two of them; who asks anew waits behind all others."""

    async def story() -> list[str]:
        loop = asyncio.get_running_loop()
        turns = Turns(loop)
        happened: list[str] = []
        again = 2

        def greedy() -> None:
            nonlocal again
            happened.append("greedy")
            if again:
                again -= 1
                turns.queue(greedy)

        def look() -> None:
            happened.append("-")
            if turns.is_crowded:
                loop.call_soon(look)

        assert not turns.is_crowded
        turns.queue(greedy)
        turns.queue(lambda: happened.append("modest"))
        loop.call_soon(look)
        while happened[-1:] != ["-"] or turns.is_crowded:
            await asyncio.sleep(0)
        return happened

    happened = asyncio.run(story())
    assert [one for one in happened if one != "-"] == ["greedy", "modest", "greedy", "greedy"]
    assert not any(first != "-" and second != "-" for first, second in itertools.pairwise(happened))
