"""What is forbidden, to whom, since when: documents in, generation out, verdicts on top. Pure: time is an argument."""
