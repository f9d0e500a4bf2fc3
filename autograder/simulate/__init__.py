"""What would a class hand in? Makes one up, with the truth about each submission, to try out how a class is graded."""
