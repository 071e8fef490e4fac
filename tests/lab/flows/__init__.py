"""The six flows of the document that Lab IAM was ordered with, each numbered step as a check of its effect.

`./lab demo` walks them before a person's eyes, tests/e2e runs the same steps as tests.
"""

from tests.lab.flows import login, read_configurations, register, start, update_keys, write_key

# The order in which a new person meets them.
FLOWS = [write_key.FLOW, read_configurations.FLOW, register.FLOW, start.FLOW, login.FLOW, update_keys.FLOW]
