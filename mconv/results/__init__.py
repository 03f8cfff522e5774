"""From the outcome of a run to verdicts, the report and the files of OUT."""
