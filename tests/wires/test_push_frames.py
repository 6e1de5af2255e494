"""The bytes of every frame, as they were when version 1 was written. A change here is a new version, or a mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from budao.push import BY_CODE, VERSION, WHYS, Frame
from budao.wire.push_frames import JSON, MSGPACK
from tests.wires.push_samples import CLIENT, GATEWAY

HERE = Path(__file__).parent
CAPTURED = json.loads((HERE / f"push_frames_v{VERSION}.json").read_text(encoding="utf-8"))
DOCUMENT = HERE.parents[1] / "docs" / "reference" / "push-frames.md"
BLOCK = re.compile(r"```json (client|gateway)\n(.+?)\n```", re.DOTALL)
SHOWN = BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
SAMPLES = [("client", name, frame) for name, frame in CLIENT.items()] + [
    ("gateway", name, frame) for name, frame in GATEWAY.items()
]


@pytest.mark.parametrize(("side", "name", "frame"), SAMPLES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_frame_has_the_bytes_it_always_had_and_they_mean_what_they_meant(side: str, name: str, frame: Frame) -> None:
    captured = CAPTURED[side][name]
    text, packed = captured["json"].encode(), bytes.fromhex(captured["msgpack"])
    assert JSON.encode(frame) == text
    assert MSGPACK.encode(frame) == packed
    for codec, raw in ((JSON, text), (MSGPACK, packed)):
        read = codec.decode if side == "client" else codec.decode_from_gateway
        again = read(raw)
        # Through msgpack a number is a number: 1.50 comes out as 1.5.
        assert codec.encode(again) == raw
        assert type(again) is type(frame)
    assert (JSON.decode(text) if side == "client" else JSON.decode_from_gateway(text)) == frame


def test_nothing_captured_has_been_forgotten() -> None:
    assert {side: set(frames) for side, frames in CAPTURED.items()} == {"client": set(CLIENT), "gateway": set(GATEWAY)}


@pytest.mark.parametrize(("side", "shown"), SHOWN)
def test_an_example_in_the_document_is_a_frame_and_says_all_that_the_codec_says(side: str, shown: str) -> None:
    value = json.loads(shown)
    raw = shown.encode()
    frame = JSON.decode(raw) if side == "client" else JSON.decode_from_gateway(raw)
    assert json.loads(JSON.encode(frame)) == value


def test_the_document_shows_every_type_of_frame_of_either_side() -> None:
    shown = {(side, json.loads(text)["type"]) for side, text in SHOWN}
    captured = {
        (side, json.loads(each["json"])["type"]) for side, frames in CAPTURED.items() for each in frames.values()
    }
    assert shown == captured


def test_the_document_lists_every_word_of_a_refusal_and_every_code_of_an_ending() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    for why, (status, meaning) in WHYS.items():
        assert f"| `{why}` | {status} | {meaning} |" in page
    for ending in BY_CODE.values():
        assert f"| {ending.code} | `{ending.why}` | {ending.advice.value} |" in page
