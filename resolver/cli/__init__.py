"""The command `interdict`: verbs over what the floors below do. Reads clocks, prints, and sets exit codes."""
