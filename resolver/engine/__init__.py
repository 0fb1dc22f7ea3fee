"""The corridor every query walks, its cache and its way to the upstreams.

Rules of the room: no sockets, no TLS, no clock of its own. Time comes in through `Clock`, datagrams through the
pipeline's arguments, upstreams through `Exchange`; so a whole story can be replayed in a test without waiting a second.
"""
