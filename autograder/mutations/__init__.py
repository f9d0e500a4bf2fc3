"""Does the grader notice? Bugs as students make them, and what becomes of each."""
