"""The machine room: bytes in, bytes out, as few objects as possible.

Rules of the room: no I/O, no clock, no policy, nothing from the floors above. One source, two ways to run it: the
`*_cy.py` modules are plain Python in Cython's pure mode, so they run as they are and, where a C compiler was present at
install time, compiled. Both give the same bytes (`tests/unit/hot`).

`_scan_cy`   where a message's parts begin and end, and whether it is well formed
`_names_cy`  a name, or any of its ancestors, found in a table of millions
`_templates_cy`  answers with gaps, for names below listed ones that nobody asked for yet
`_ready_cy`  one ready answer
`_memo_cy`   ready answers in memory of their own (compiled)
`_twice_cy`  what was filled in before is learned (compiled)
`_batch_cy`  the memo of all these, and the loop that answers a batch from it
`_relay_cy`  questions forwarded from the batch (compiled)
`relay_plain`, `relay_shapes`  the same where nothing is compiled
"""
