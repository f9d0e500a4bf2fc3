"""How fast, by how much? One command a table, each beside what a user would pick instead."""
