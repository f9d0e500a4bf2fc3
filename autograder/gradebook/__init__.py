"""Who gets which grade?"""
