"""Submissions that attack the grader: what each does, and the outcome that it must get."""
