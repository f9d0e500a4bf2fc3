"""What do students get?"""
