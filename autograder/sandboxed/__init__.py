"""What runs inside the sandbox: it calls one function of a student on given inputs and sends back plain arrays.

Nothing here knows a reference, a tolerance or a verdict. The folder is mounted read-only in the sandbox, together with
`component_checks.py`; beside those it imports the standard library and torch.
"""
