"""What came of a run: verdicts, the report, the files of OUT."""
