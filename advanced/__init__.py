"""How do I get an A+? The methods beyond the assignment, one a file, and what each of them buys."""
