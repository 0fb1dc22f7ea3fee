"""The roof: processes, clocks and signals, wired by hand."""
