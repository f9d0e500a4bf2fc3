"""What does the teaching team look at?"""
