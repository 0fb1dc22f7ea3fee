"""The windows of the house: how octets come in from clients, and go out to upstreams and come back.

Rules of the room: a transport knows framing, limits and time-outs, and nothing of policy or DNS beyond a message's
first octets. What to answer is asked of a function that the roof hands in.
"""
