"""Where documents come from. Each module brings one kind of source; what they mean is `policy`'s affair."""
