"""The paper's evaluation by command, at any scale, and a fair one beside it. Start with `methods.py`."""
