"""Child processes: what they are asked, how they are watched, how their answers are believed."""
