"""What each kind of step does, inside a worker."""
