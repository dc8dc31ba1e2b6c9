"""``xengt-dm status`` of a domain whose GPU has engines."""

from __future__ import annotations

import pytest

from tests.support.control import handlers_of
from tests.support.skylake import skylake
from xengt_dm.cli import status
from xengt_dm.daemon.recording import Recording
from xengt_dm.sim.driver import BASES, ELSP, RCS0
from xengt_dm.steps import finish


def test_what_the_gpu_did_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with skylake() as (_, instance):
        recording = Recording(instance.engine, instance.device, instance.bus, 64)
        ask = handlers_of(instance, recording)["status"]
        told = ask({})
        assert isinstance(told, dict)
        assert set(told["gpu"].values()) == {0}
        for _ in range(4):
            finish(instance.device.write(BASES[RCS0] + ELSP, 4, 0))  # a list with no element
        told = ask({})
        assert isinstance(told, dict)
        assert (told["gpu"]["lists"], told["gpu"]["ignored"]) == (1, 1)
        status._show(told)
        lines = capsys.readouterr().out.splitlines()
        assert "GPU: 1 list submitted, 0 contexts loaded, 0 commands executed, 0 events and 0 interrupts" in lines
        assert "GPU: 1 lists ignored" in lines
