"""How is it made fast, and how are tokens drawn? So far: `sampling`, the one home of every way to draw a token."""
