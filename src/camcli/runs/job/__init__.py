"""Jobs: the options of a run, how they are given, and their fingerprint."""
