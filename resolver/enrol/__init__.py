"""Profiles that point devices here: from a service and a device to the files that a platform reads.

Every platform is one function from values to values (`profile.Maker`); nothing here reads a file, a clock or chance, so
the same service and device give the same octets. `platforms` lists them, `lint` reads such files back.
"""
