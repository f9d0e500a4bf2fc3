"""Whose code is alike?"""
