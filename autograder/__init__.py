"""How is it graded? The instructor's half of the assignment; see README.md in this folder."""
