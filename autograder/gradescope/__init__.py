"""How does it run on Gradescope?"""
