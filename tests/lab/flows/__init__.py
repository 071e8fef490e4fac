"""The six flows of the original specification, with a check of the effect of each numbered step.

`./lab demo` shows them step by step, tests/e2e runs the same steps as tests.
"""

from tests.lab.flows import login, read_configurations, register, start, update_keys, write_key

# The order in which a new person meets them.
FLOWS = [write_key.FLOW, read_configurations.FLOW, register.FLOW, start.FLOW, login.FLOW, update_keys.FLOW]
