"""How is a class graded?"""
