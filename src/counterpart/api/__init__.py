"""What a Python program asks for: evaluate, audit, explain, train, predict and load.

The commands call the same functions below.
"""
