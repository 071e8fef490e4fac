import pytest

from servers.services.recording import backoff


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 2), (2, 4), (5, 32), (9, 300), (100, 300)])
def test_y1_the_pause_doubles_up_to_five_minutes(attempts: int, seconds: float) -> None:
    pauses = {backoff(attempts).total_seconds() for _ in range(50)}
    assert all(0.8 * seconds <= pause <= min(300, 1.2 * seconds) for pause in pauses)
    assert len(pauses) > 10, "without chance in it all servers come in step"


def test_what_waiting_does_not_mend_is_tried_rarely() -> None:
    assert backoff(1, permanent=True).total_seconds() >= 240
