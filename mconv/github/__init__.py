"""GitHub: its REST API, the job's environment, and what is published there."""
