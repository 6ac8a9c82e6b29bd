"""What came of a run, for people: the summary record, its tables and one self-contained page."""
