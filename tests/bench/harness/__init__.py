"""The bench: servers side by side on one machine, compared by the CPU time one answered query costs.

The rooms, from below: `machine` (cores, processes, memory, from /proc), `work` (what is asked and what is right),
`servers` (how each is configured and started), `load` (the generator, and one measured run), `report` (medians and
ratios to the floor), `errand` (a command from its arguments to its exit code), `command` (rounds, and the command
line). `names`, `encrypted` and `workers` are commands of their own, about long lists, encryption and a second worker;
`quic_client` is a program that `encrypted` runs.
"""
