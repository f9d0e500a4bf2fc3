"""What was handed in? Format and static analysis, in a process of few rights."""
