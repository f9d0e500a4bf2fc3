"""What does the student read?"""
