"""One test per flow of the original specification, in the order in which a new person meets them."""

import pytest

from tests.lab.flows import login, read_configurations, register, start, update_keys, write_key
from tests.lab.walk import Flow, Step, Walk


def every_step_of(flow: Flow) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("step", flow.steps, ids=lambda step: step.number)


@every_step_of(write_key.FLOW)
def test_write_ssh_public_key_to_iam(walk: Walk, step: Step) -> None:
    step.check(walk)


@every_step_of(read_configurations.FLOW)
def test_read_configurations_on_iam(walk: Walk, step: Step) -> None:
    step.check(walk)


@every_step_of(register.FLOW)
def test_register_a_container_on_a_server(walk: Walk, step: Step) -> None:
    step.check(walk)


@every_step_of(start.FLOW)
def test_start_the_container(walk: Walk, step: Step) -> None:
    step.check(walk)


@every_step_of(login.FLOW)
def test_log_in_to_the_container(walk: Walk, step: Step) -> None:
    step.check(walk)


@every_step_of(update_keys.FLOW)
def test_iam_updates_ssh_keys(walk: Walk, step: Step) -> None:
    step.check(walk)
