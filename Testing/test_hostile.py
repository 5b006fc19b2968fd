"""Data from strangers: every case ends in the project's own errors, soon.

Few cases in the suite; ``DEMIST_FUZZ_EXAMPLES=1000`` draws so many of each kind, and others every time.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os

import pytest
import torch
from hostile import damaged, fuzz
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from DEMISTCore.brain_ldm.samples import read_requests
from DEMISTCore.bundle import Bundle, description_hash, read_description
from DEMISTCore.diffusion import KINDS, PREDICTIONS, SPACINGS, NoiseSchedule
from DEMISTCore.errors import BundleError, DemistError, InputError
from DEMISTCore.networks import limits
from DEMISTCore.networks.brain_ldm import UNetConfig
from DEMISTCore.networks.config import PRESETS
from DEMISTCore.published.configuration import inference_config, read_configuration
from DEMISTCore.published.ddim import Scheduler
from DEMISTCore.schema import parse_json, printable
from DEMISTCore.training import checkpoint, context
from DEMISTCore.training.settings import build, presets, resolve, to_dict
from DEMISTCore.training.stages import STAGES
from DEMISTCore.weights import read_weights
from DEMISTCore.worker.protocol import ProtocolError, decode

DEEP: object = 0
for _ in range(200):
    DEEP = [DEEP]
ODD = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        1e300,
        -1e300,
        10**30,
        10**400,
        -(10**400),
        float("nan"),
        float("inf"),
        1e-320,
        "",
        "x",
        "../..",
        "a\x1b[31m",
        "\ud800",
        "@steps",
        "@noise",
        "$print(1)",
        [],
        {},
        [[]],
        [1, 2, 3],
        {"a": {"b": 1}},
        "9" * 5000,
        [0] * 1000,
        DEEP,
    ]
)
ANY = ODD | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@contextlib.contextmanager
def own_errors(kind):
    """Passes, or fails as it should: with a sentence that a terminal can show."""
    try:
        yield
    except kind as error:
        if not str(error) or not str(error).isprintable():
            pytest.fail(repr(error))


@st.composite
def changed(draw, base):
    """``base`` with a few of its values replaced or removed."""
    tree = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, 3))):
        node, way = tree, []
        while isinstance(node, (dict, list)) and node:
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            way.append((node, key))
            node = node[key]
            if draw(st.integers(0, 3)) == 0:
                break
        if way:
            place, key = way[-1]
            if isinstance(place, dict) and draw(st.integers(0, 4)) == 0:
                del place[key]
            else:
                place[key] = copy.deepcopy(draw(ANY))  # what is drawn again is the same object, and may be changed next
    return tree


def dumps(tree) -> bytes:
    return json.dumps(tree).encode("utf-8", "surrogatepass")


# --- descriptions ----------------------------------------------------------------------------------------------------

TINY = PRESETS["tiny"].to_dict()
FOUNDATION = {
    "format": "demist-bundle",
    "format_version": 1,
    "kind": "foundation",
    "name": "tiny",
    "version": "1",
    "description": "",
    "licence": "Apache-2.0",
    "simulated": True,
    "warning": "w",
    "model": {key: value for key, value in TINY.items() if key != "streams"},
    "schedule": NoiseSchedule().to_dict(),
    "latent_scale": 1.0,
    "condition_scale": 1.0,
    "psr_range": 0.2,
    "spacing": 1.0,
    "sampling": {"sampler": "ddim", "steps": 3, "seeds": 2, "guidance": {"all": 1.2}},
    "training": {},
    "documents": [],
    "files": {"backbone.safetensors": {"sha256": "0" * 64, "bytes": 10}},
}


def use_description(folder, info) -> None:
    (folder / "bundle.json").write_bytes(info if isinstance(info, bytes) else dumps(info))
    bundle = Bundle(folder, read_description(folder))
    for what in ("config", "schedule", "latent_scale", "condition_scale", "psr_range", "spacing", "sampling", "hash"):
        getattr(bundle, what)


@fuzz
@given(changed(FOUNDATION))
def test_bundle_descriptions_with_a_right_hash(tmp_path_factory, info):
    info["hash"] = description_hash(info)
    with own_errors(BundleError):
        use_description(tmp_path_factory.getbasetemp(), info)


@fuzz
@given(damaged(dumps(FOUNDATION)) | st.binary(max_size=200))
def test_bundle_descriptions_of_any_bytes(tmp_path_factory, content):
    with pytest.raises(BundleError):
        use_description(tmp_path_factory.getbasetemp(), content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"latent_scale": float("nan")}, "latent_scale"),
        ({"psr_range": -1}, "psr_range"),
        ({"spacing": 0}, "spacing"),
        ({"name": "../x"}, "plain name"),
        ({"files": {"backbone.safetensors": {"bytes": "9"}}}, "sha256"),
        ({"files": {"backbone.safetensors": None}}, "files"),
        ({"schedule": {"steps": 10**9}}, "schedule.steps"),
        ({"schedule": 3}, "schedule"),
        ({"sampling": {"steps": 1e999}}, "sampling.steps"),
        ({"kind": ["ldm"]}, "kind"),
        ({"simulated": 1}, "simulated"),
        ({"licence": "a\x1b[2J"}, "licence"),
        ({"training": DEEP}, "nested too"),
        ({"kind": "demist", "files": {}, "base": {"name": "../../etc", "hash": "0" * 64}}, "base.name"),
    ],
)
def test_a_right_hash_is_not_enough(change, says, tmp_path):
    info = {**FOUNDATION, **change}
    info["hash"] = description_hash(info)
    with pytest.raises(BundleError, match=says):
        use_description(tmp_path, info)


def test_good_descriptions_pass(tmp_path):
    use_description(tmp_path, {**FOUNDATION, "hash": description_hash(FOUNDATION)})


INFERENCE = inference_config(
    PRESETS["brats"].psr, UNetConfig.of_backbone(PRESETS["brats"].backbone), Scheduler(), (), (8, 8, 8)
)


@fuzz
@given(changed(INFERENCE))
def test_inference_configurations(tmp_path_factory, config):
    file = tmp_path_factory.getbasetemp() / "inference.json"
    file.write_bytes(dumps(config))
    with own_errors(BundleError):
        read_configuration(file)


def test_references_that_multiply_are_refused(tmp_path):
    config = {**INFERENCE, **{f"a{i}": [f"@a{i + 1}"] * 50 for i in range(7)}, "a7": 1}
    config["autoencoder_def"] = {**config["autoencoder_def"], "channels": "@a0"}
    (tmp_path / "inference.json").write_bytes(dumps(config))
    with pytest.raises(BundleError, match="too many values"):
        read_configuration(tmp_path / "inference.json")


def test_limits_know_what_the_schedule_knows():
    assert limits.SCHEDULES == KINDS
    assert limits.PREDICTIONS == PREDICTIONS
    assert limits.SPACINGS == SPACINGS
    for preset in PRESETS.values():
        assert limits.read_model(preset.to_dict()) == preset


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        "lr=nan",
        "lr=inf",
        "betas=[]",
        "betas=[0.9,.nan]",
        "seed=-1",
        "seed=1e400",
        "schedule.steps=abc",
        "validation=2",
        "warmup=-5",
        "threads=100000",
        "ema=1",
        "clip=nan",
        "lambda_edge=-1",
        "dropout_all=2",
        "augment.gain=nan",
        "preprocess.spacing=nan",
        "model.psr.channels=5",
        "model.psr.channels=[8,16,1e9]",
        "model.streams.tokens=1e9",
        "schedule.beta_start=0.9",
        "schedule.kind=7",
        "steps=1e300",
        "max_minutes=.nan",
        "focus=[0.5,0.2]",
        "model.backbone.attention_levels=[1,2]",
        "cache=[1]",
        "save_every=0",
        "decode=[1,2]",
        "batch=1e12",
        "lr=!!python/object/apply:os.system [ls]",
        "lr=[[[" + "[" * 2000,
        "lr=2001-99-99",
    ],
)
def test_settings_out_of_range_are_one_sentence(word):
    with pytest.raises(InputError) as error:
        resolve("demist", "tiny", [word])
    assert str(error.value).isprintable()


@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize("stage", list(STAGES))
def test_what_the_presets_say_is_within_range(stage, preset):
    whole = resolve(stage, preset, ["steps=5"])
    assert build(stage, to_dict(whole)) == whole


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "more than"),
        ("a: &a [*a]", "part of"),
        ("[" * 5000, "nested|YAML"),
        ("a: " + "x" * 200_000, "larger"),
        ("{" * 40 + "}" * 40, "nested|YAML"),
        ("- 1", "key: value"),
        ("lr: !!binary aGk=", "lr must be"),
        ("a: 2001-99-99", "YAML|Unknown"),
    ],
)
def test_yaml_that_stands_for_too_much(text, says, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        resolve("demist", str(tmp_path / "x.yaml"), ["steps=3"])


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    from DEMISTCore.training.settings import read_yaml

    with pytest.raises(InputError, match="no regular file"):
        read_yaml(tmp_path / "config.yaml")


TREE = to_dict(resolve("demist", "tiny", ["steps=5"]))


@fuzz
@given(changed(TREE))
def test_run_configurations(tree):
    with own_errors(InputError):
        build("demist", tree)


@fuzz
@given(damaged(b"lr: 1e-3\ndemist: {crop: &a [4, 4, 4], decode: *a}\nmodel: tiny\n") | st.binary(max_size=80))
def test_yaml_of_any_bytes(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    with own_errors(InputError):
        resolve("demist", str(file), ["steps=3"])


# --- tables ----------------------------------------------------------------------------------------------------------

CONDITIONS = ("sex", "age")
CSV = b"participant_id,session_id,age,sex\nsub-001,ses-01,0.5,1\nsub-002,,n/a,0\n"


@fuzz
@given(damaged(CSV) | st.binary(max_size=100))
def test_tables_of_contexts(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "table.csv"
    file.write_bytes(content)
    with own_errors(InputError):
        rows = context._read(file, CONDITIONS)
        assert all(0 <= value <= 1 for row in rows.values() for value in row.values())


@fuzz
@given(damaged(b"name,age,sex,seed\na,0.5,1,3\nb,0.1,0,4\n") | st.binary(max_size=100))
def test_tables_of_brains(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "brains.csv"
    file.write_bytes(content)
    with own_errors(InputError):
        assert all(0 <= request.seed < 1 << 63 for request in read_requests(file))


@pytest.mark.parametrize(
    "text",
    [
        "age,seed\n0.5,\u00b2\n",
        "age,seed\n0.5," + "9" * 400 + "\n",
        "age\n0.5,1,2\n",
        'age\n"' + "x" * 200_000 + '"\n',
        "name,age\n..,0.5\n",
    ],
)
def test_bad_tables_of_brains(text, tmp_path):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        read_requests(tmp_path / "x.csv")


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint, and its files' content."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    state = {
        "step": 1,
        "elapsed": 0.5,
        "best": 1.0,
        "evaluated": {"validate": 0, "preview": 0},
        "optimizers": {"a": optimizer.state_dict()},
        "precision": {},
    }
    folder = checkpoint.save(tmp_path_factory.mktemp("saved"), 1, {"w": weight}, {"w": weight}, state)
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


@fuzz
@given(st.data())
def test_checkpoints(saved, data):
    folder, content = saved
    name = data.draw(st.sampled_from(sorted(content)))
    for other, plain in content.items():
        (folder / other).write_bytes(plain)
    (folder / name).write_bytes(data.draw(damaged(content[name])))
    if name != checkpoint.CHECKSUMS and data.draw(st.booleans()):  # somebody who knows of checksums
        sums = json.loads(content[checkpoint.CHECKSUMS])
        sums[name] = {"sha256": checkpoint.sha256(folder / name), "bytes": (folder / name).stat().st_size}
        (folder / checkpoint.CHECKSUMS).write_text(json.dumps(sums))
    with own_errors(InputError):
        checkpoint.load(folder)


@fuzz
@given(st.data())
def test_safetensors(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "x.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.float16)}, file)
    content = file.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    if data.draw(st.booleans()):
        new = dumps(data.draw(changed(json.loads(header))))
        content = len(new).to_bytes(8, "little") + new + content[8 + len(header) :]
    else:
        content = data.draw(damaged(content))
    file.write_bytes(content)
    for read in (read_weights, checkpoint.read_tensors):
        with own_errors(DemistError):
            read(file)


# --- the worker's lines ----------------------------------------------------------------------------------------------

REQUEST = {
    "id": 7,
    "do": "synthesize",
    "t1w": {"npy": "/tmp/a.npy", "affine": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
    "flair": {"file": "/tmp/f.nii"},
    "seeds": [1, 2],
    "steps": 4,
    "guidance": {"all": 1.0},
    "register": True,
    "folder": "/tmp",
    "device": "cpu",
    "distances": {},
    "provenance": None,
}


@fuzz
@given(changed(REQUEST))
def test_requests(request_):
    with own_errors(ProtocolError):
        request = decode(dumps(request_))
        assert isinstance(request["id"], int)


@fuzz
@given(damaged(dumps(REQUEST)) | st.binary(max_size=200))
def test_lines_of_any_bytes(line):
    with own_errors(ProtocolError):
        decode(line)


@pytest.mark.parametrize(
    "change",
    [
        {"t1w": 3},
        {"t1w": {"npy": 3}},
        {"t1w": {"npy": "a\0b", "affine": None}},
        {"seeds": "x"},
        {"seeds": [[1]]},
        {"steps": "3"},
        {"steps": 1e999},
        {"guidance": "all"},
        {"folder": 3},
        {"bundle": []},
        {"register": "no"},
        {"any_brain_volume": "yes"},
        {"distances": []},
        {"t1w": {"npy": "a", "affine": [[1]]}},
        {"device": "\ud800"},
    ],
)
def test_wrong_fields_are_the_senders_mistake(change):
    with pytest.raises(ProtocolError, match="cannot be used"):
        decode(dumps({**REQUEST, **change}))
    assert decode(dumps(REQUEST)) == REQUEST


def test_control_characters_are_shown_escaped():
    assert printable("a\x1b[31m\u202eb\tc\n", keep="\n") == "a\\x1b[31m\\u202eb\\tc\n"
    assert printable("é ü 脳") == "é ü 脳"


@pytest.mark.parametrize("kind", [InputError, BundleError, DemistError])
@pytest.mark.parametrize("name", ["\ufbc3", "\x1b[2J", "a\nb", "\u202etxt", "\udce9"])
def test_what_errors_quote_is_escaped_wherever_they_are_shown(kind, name, tmp_path):
    assert str(kind(f"{name} is odd.")) == f"{name.encode('unicode_escape').decode()} is odd."
    info = {**FOUNDATION, "model": {name: None}}
    with pytest.raises(BundleError) as error:
        use_description(tmp_path, {**info, "hash": description_hash(info)})
    assert str(error.value).isprintable()


def test_json_is_bounded():
    with pytest.raises(ValueError, match="nested"):
        parse_json("[" * 100_000)
    with pytest.raises(ValueError, match="values"):
        parse_json("[" + "0," * 300_000 + "0]")


HUGE = 10**400  # a whole number that no float holds


def test_numbers_of_hundreds_of_digits_are_no_numbers(tmp_path):
    """JSON allows them, and arithmetic with them raises OverflowError, which is no ValueError."""
    from DEMISTCore.acquisition import protocol_vector
    from DEMISTCore.options import SynthesisOptions
    from DEMISTCore.regions import RegionSettings
    from DEMISTCore.uncertainty import serial
    from DEMISTCore.uncertainty.typical import Typical
    from DEMISTCore.volume import Volume

    vector, notes = protocol_vector({"RepetitionTime": HUGE}, {})
    assert not vector.any()
    assert "a number of many digits, which is no number; it is ignored" in notes[0]
    with pytest.raises(ValueError, match="no number"):
        Typical.from_dict({"mean": [HUGE], "directions": [[1]], "deviations": [1, 1]})
    with pytest.raises(ValueError, match="not a number of many digits"):
        serial._number(HUGE, "scale_sd", 0.0)
    for settings in ({"proximal_mm": (2, HUGE)}, {"distal_mm": HUGE}):
        with pytest.raises(InputError):
            RegionSettings(**settings)
    with pytest.raises(InputError):
        SynthesisOptions(guidance={"all": HUGE}).arguments()
    header = "ObjectType = Image\nNDims = 3\nDimSize = 5 6 {}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    for size in (HUGE, -HUGE):
        (tmp_path / "t1w.mha").write_text(header.format(size))
        with pytest.raises(InputError, match="dimsize must hold 3 numbers"):
            Volume.read(tmp_path / "t1w.mha")
