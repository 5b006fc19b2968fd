"""The panel, made from its .ui in a real Qt window and driven as a person does: clicks, keys, watching."""

from __future__ import annotations

import gc
import json
import logging
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import slicer_app

slicer_app.install()

import qt  # noqa: E402
import slicer  # noqa: E402
import vtk  # noqa: E402
from PySide6.QtCore import QPoint, Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402

ROOT = Path(__file__).parents[1]
UI = ROOT / "DEMISTSlicer" / "Resources" / "UI" / "DEMISTSlicer.ui"
PATIENCE = 240  # seconds: the child loads torch, on a machine that may be busy with something else


def load(path: Path, name: str, kind: str = "vtkMRMLScalarVolumeNode"):
    """A NIfTI file as a volume node of the scene."""
    image = nib.load(path)
    # nibabel and MRML both speak RAS; Slicer's arrays are K, J, I.
    return slicer.util.addVolumeFromArray(np.asarray(image.dataobj).T.copy(), image.affine, name, kind)


def click(widget) -> None:
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)


def pick(selector, node) -> None:
    """Choose a node as a person does: with the keys, in the list."""
    box = selector._box
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Home)  # nothing, where that can be chosen
    for _ in range(0 if node is None else box.findText(node.GetName())):
        QTest.keyClick(box, Qt.Key.Key_Down)
    assert selector.currentNode() is node


def type_number(box, value) -> None:
    box.setFocus()
    slicer_app.process_events()
    QTest.keyClick(box, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClicks(box, str(value))
    QTest.keyClick(box, Qt.Key.Key_Tab)


@pytest.fixture
def panel():
    """The module as Slicer opens it, in a window; every error in a slot fails the test."""
    failures = []
    before, sys.excepthook = sys.excepthook, lambda *error: failures.append(error)
    slicer_app.fresh_scene()
    module = slicer_app.open_module()
    parent = module.widgetRepresentation()
    widget = parent.self()
    widget._asked = True  # what can compute is looked for by the tests of the logic
    parent.resize(430, 1800)
    widget.ui.advancedCollapsibleButton.collapsed = False  # most tests are about what is in there
    parent.show()
    parent.enter()
    slicer_app.process_events()
    yield widget
    slicer_app.close_module()
    slicer_app.fresh_scene()
    sys.excepthook = before
    assert not failures, failures


@pytest.fixture
def scanned(panel, head, tiny_bundle):
    """The panel with a session loaded, and the tiny model chosen."""
    nodes = {
        "t1": load(head.t1w, "MPRAGE"),
        "flair": load(head.flair, "FLAIR"),
        "mask": load(head.mask, "brain", "vtkMRMLLabelMapVolumeNode"),
    }
    lesions = np.zeros(slicer.util.arrayFromVolume(nodes["t1"]).shape, np.uint8)  # K, J, I
    lesions[18:22, 30:34, 30:33] = 1
    lesions[20:23, 18:21, 12:15] = 1
    matrix = vtk.vtkMatrix4x4()
    nodes["t1"].GetIJKToRASMatrix(matrix)
    nodes["lesions"] = slicer.util.addVolumeFromArray(lesions, matrix, "lesions", "vtkMRMLLabelMapVolumeNode")
    panel.bundles.refresh(str(tiny_bundle))
    panel._onBundleChosen(str(tiny_bundle))
    return panel, nodes


def run_to_end(panel) -> None:
    assert slicer_app.wait_until(lambda: not panel.logic.isRunning, PATIENCE), panel.ui.logTextEdit.plainText
    slicer_app.process_events(0.05)


# --- the .ui file ----------------------------------------------------------------------------------------------------


def widgets_of(tree: ElementTree.ElementTree) -> list[ElementTree.Element]:
    return [w for w in tree.iter("widget") if w.get("class") != "qMRMLWidget"]


def property_of(element: ElementTree.Element, name: str) -> str | None:
    for item in element.findall("property"):
        if item.get("name") == name:
            return "".join(item.itertext()).strip()
    return None


def test_everything_has_a_tooltip():
    bare = [w.get("name") for w in widgets_of(ElementTree.parse(UI)) if not property_of(w, "toolTip")]
    assert bare == []


def test_every_node_selector_is_told_of_the_scene():
    tree = ElementTree.parse(UI)
    selectors = {w.get("name") for w in widgets_of(tree) if w.get("class").startswith("qMRML")}
    told = {
        c.findtext("receiver")
        for c in tree.iter("connection")
        if c.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and c.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
    }
    assert selectors == told
    assert len(selectors) == 9


def test_every_parameter_named_in_the_ui_exists_and_none_twice():
    from DEMISTSlicerLib.Panel.Parameters import DEMISTParameters

    named = [property_of(w, "SlicerParameterName") for w in widgets_of(ElementTree.parse(UI))]
    named = [name for name in named if name]
    assert len(named) == len(set(named))
    assert set(named) <= set(DEMISTParameters.allParameters)


def test_the_sections_of_the_panel():
    titles = [property_of(w, "text") for w in widgets_of(ElementTree.parse(UI)) if "Collapsible" in w.get("class")]
    assert titles == [
        "Inputs",
        "Display",
        "Lesions and regions",
        "Statistics",
        "Follow-up",
        "Many patients",
        "Advanced",
        "Model",
        "How the map is made",
        "Brain mask",
        "Outputs",
        "Log",
        "Generate synthetic T1w",
        "Environment",
    ]


# --- before a run ----------------------------------------------------------------------------------------------------


def test_an_empty_scene_cannot_be_applied(panel):
    assert not panel.ui.applyButton.enabled
    assert "Choose a T1w" in panel.ui.applyButton.toolTip
    assert not panel.ui.statisticsButton.enabled
    assert panel.ui.inputsHintLabel.text == "Choose a T1w and a FLAIR of the same session."
    assert panel.ui.bundleComboBox.count >= 1
    assert "simulated" in panel.ui.bundleNoteLabel.text
    assert "Licence" in panel.ui.bundleComboBox.toolTip
    assert panel.ui.generateCollapsibleButton.collapsed


def test_likely_images_are_chosen_on_entering(panel, head):
    t1, flair = load(head.t1w, "sub-01_T1w"), load(head.flair, "sub-01_FLAIR")
    panel.parent.exit()
    panel.parent.enter()
    assert panel.ui.t1Selector.currentNode() is t1
    assert panel.ui.flairSelector.currentNode() is flair
    assert panel.ui.applyButton.enabled


def test_swapped_or_equal_images_are_pointed_out(scanned):
    panel, nodes = scanned
    pick(panel.ui.t1Selector, nodes["flair"])
    pick(panel.ui.flairSelector, nodes["flair"])
    assert "same volume" in panel.ui.inputsHintLabel.text
    assert not panel.ui.applyButton.enabled
    pick(panel.ui.flairSelector, nodes["t1"])
    assert "swapped" in panel.ui.inputsHintLabel.text
    assert panel.ui.inputsHintLabel.visible


def test_presets_fill_in_numbers_and_numbers_choose_the_preset(scanned):
    panel, _nodes = scanned
    box, ui = panel.ui.presetComboBox, panel.ui
    assert box.itemData(box.currentIndex) == "balanced"
    assert (ui.seedsSpinBox.value, ui.stepsSpinBox.value) == (2, 3)  # what the bundle recommends
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Home)
    assert box.itemData(box.currentIndex) == "fast"
    assert (ui.seedsSpinBox.value, ui.stepsSpinBox.value) == (1, 3)
    type_number(ui.stepsSpinBox, 7)
    assert box.itemData(box.currentIndex) == "custom"
    assert "min" in box.currentText or " s" in box.currentText
    QTest.keyClick(box, Qt.Key.Key_End)
    QTest.keyClick(box, Qt.Key.Key_Up)
    assert box.itemData(box.currentIndex) == "best"
    assert (ui.seedsSpinBox.value, ui.stepsSpinBox.value) == (8, 3)


@pytest.fixture
def advised(tiny_bundle, tmp_path):
    """Makes copies of the tiny model that recommend other sampling."""
    from shutil import copytree

    from DEMISTCore.bundle import description_hash

    copytree(tiny_bundle.parent / "tiny-base", tmp_path / "tiny-base")

    def make(name: str, **sampling) -> Path:
        folder = copytree(tiny_bundle, tmp_path / name)
        file = folder / "bundle.json"
        told = json.loads(file.read_text(encoding="utf-8"))
        told["name"] = name
        told["sampling"] = sampling
        told["hash"] = description_hash(told)
        file.write_text(json.dumps(told), encoding="utf-8")
        return folder

    return make


def test_guidance_begins_at_what_the_bundle_recommends(panel, advised, monkeypatch):
    guided = advised("guided", sampler="dpmpp_2m", spacing="trailing", steps=4, seeds=4, guidance={"all": 1.25})
    streams = advised("streams", steps=6, seeds=2, guidance={"semantic": 1.5, "spatial": 1.125})
    plain = advised("plain", steps=4, seeds=4)
    ui, sent = panel.ui, []
    monkeypatch.setattr(panel.logic, "synthesize", lambda t1, flair, options, **_more: sent.append(options.guidance))

    def browse(folder: Path) -> None:
        monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(folder)))
        click(ui.browseBundleButton)

    def seconds(**more) -> float:
        return panel.logic.expectedSeconds(seeds=4, steps=4, **more)

    # A new scene, before anything was chosen: whatever the default model recommends.
    default = panel.bundles.sampling
    assert (ui.seedsSpinBox.value, ui.stepsSpinBox.value) == (default["seeds"], default["steps"])
    assert ui.guidanceSpinBox.value == default["guidance"].get("all", 1.0)
    usual = "mean" if default.get("mode") == "mean" else "balanced"
    assert ui.presetComboBox.itemData(ui.presetComboBox.currentIndex) == usual
    browse(guided)
    assert (ui.guidanceSpinBox.value, ui.seedsSpinBox.value, ui.stepsSpinBox.value) == (1.25, 4, 4)
    assert ui.presetComboBox.itemData(ui.presetComboBox.currentIndex) == "balanced"
    assert "recommends 1.25" in ui.guidanceSpinBox.toolTip
    assert "evaluated" not in ui.guidanceSpinBox.toolTip
    assert "DPM-Solver" in ui.samplerComboBox.currentText
    panel.actions.apply()
    # What it recommends costs a second evaluation in each step, whether asked for or not.
    assert seconds(bundle=str(guided)) == seconds(bundle=str(guided), guidance=1.25) > seconds(bundle=str(plain))
    assert (
        seconds(bundle=str(guided), guidance=1)
        == seconds(bundle=str(guided), guidance={})
        == seconds(bundle=str(plain))
    )
    for key, numbers in ((Qt.Key.Key_Home, (1, 4, 1.25)), (Qt.Key.Key_End, (16, 4, 1.25))):
        ui.presetComboBox.setFocus()
        QTest.keyClick(ui.presetComboBox, key)
        assert (ui.seedsSpinBox.value, ui.stepsSpinBox.value, ui.guidanceSpinBox.value) == numbers
    type_number(ui.guidanceSpinBox, 1)
    assert ui.presetComboBox.itemData(ui.presetComboBox.currentIndex) == "custom"
    panel.actions.apply()
    ui.presetComboBox.setFocus()
    QTest.keyClick(ui.presetComboBox, Qt.Key.Key_Home)

    # Weights by stream: the panel shows the largest, and hands none of its own on until it is changed.
    browse(streams)
    assert ui.guidanceSpinBox.value == 1.5
    panel.actions.apply()
    ui.guidanceSpinBox.setFocus()
    QTest.keyClick(ui.guidanceSpinBox, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClicks(ui.guidanceSpinBox, "2.25")
    panel.actions.apply()  # as a click on a button that takes no focus does
    assert sent == [None, {"all": 1.0}, None, {"all": 2.25}]
    browse(plain)
    assert panel.bundles.sampling["guidance"] == {}


SAMPLE_WIDGETS = (
    "seedsSpinBox",
    "firstSeedSpinBox",
    "stepsSpinBox",
    "samplerComboBox",
    "guidanceSpinBox",
    "livePreviewCheckBox",
)


def test_the_mean_is_offered_first_and_its_model_begins_with_it(
    panel, tiny_mean_bundle, calibrated_bundle, tiny_bundle, monkeypatch
):
    from DEMISTCore.options import SynthesisOptions

    ui, sent = panel.ui, []
    monkeypatch.setattr(panel.logic, "synthesize", lambda t1, flair, options, **_more: sent.append(options))

    def browse(folder: Path) -> None:
        monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(folder)))
        click(ui.browseBundleButton)

    def shown() -> str:
        return ui.presetComboBox.itemData(ui.presetComboBox.currentIndex)

    def press(*keys) -> None:
        ui.presetComboBox.setFocus()
        for key in keys:
            QTest.keyClick(ui.presetComboBox, key)

    def enabled() -> set[bool]:
        return {bool(getattr(ui, name).enabled) for name in SAMPLE_WIDGETS}

    browse(tiny_bundle)
    assert [ui.presetComboBox.itemData(i) for i in range(ui.presetComboBox.count)] == ["fast", "balanced", "best"]
    tips = {name: getattr(ui, name).toolTip for name in SAMPLE_WIDGETS}
    assert enabled() == {True}
    browse(tiny_mean_bundle)  # the recommendation of the one, now that of the other
    assert shown() == "mean"
    assert ui.presetComboBox.itemData(0) == "mean"
    assert ui.presetComboBox.currentText.startswith("Mean (lowest error) ·")
    assert panel._parameterNode.mode == "mean"
    assert enabled() == {False}
    assert all("The mean is made in one pass" in getattr(ui, name).toolTip for name in SAMPLE_WIDGETS)
    panel.actions.apply()
    assert sent[-1] == SynthesisOptions(bundle=str(tiny_mean_bundle), mode="mean")

    press(Qt.Key.Key_End)  # samples, as many as can be
    assert shown() == "best"
    assert ui.presetComboBox.currentText.startswith("Sample, best")
    assert enabled() == {True}
    assert {name: getattr(ui, name).toolTip for name in SAMPLE_WIDGETS} == tips
    panel.actions.apply()
    assert (sent[-1].mode, sent[-1].seeds, sent[-1].steps) == ("sample", tuple(range(8)), 2)
    type_number(ui.seedsSpinBox, 3)
    assert shown() == "custom"
    press(Qt.Key.Key_Home, Qt.Key.Key_Down, Qt.Key.Key_Down)
    assert (shown(), ui.seedsSpinBox.value) == ("balanced", 2)

    browse(calibrated_bundle)  # samples were chosen, though not recommended: so it stays
    assert shown() == "balanced"
    press(Qt.Key.Key_Home)
    browse(tiny_bundle)  # which has no mean
    assert (shown(), panel._parameterNode.mode) == ("balanced", "sample")
    assert enabled() == {True}

    # An old scene tells no mode: the bundle's own. One that asks a bundle without a mean for it gets samples.
    browse(tiny_mean_bundle)
    panel._parameterNode.mode = ""
    assert (shown(), panel.sampling.options().mode) == ("mean", "mean")
    browse(tiny_bundle)
    panel._parameterNode.mode = "mean"
    assert (shown(), panel.sampling.options().mode) == ("balanced", "sample")


def test_the_uncertainty_is_called_what_it_is(panel):
    from DEMISTSlicerLib.Nodes.Volumes import createPsrVolume

    t1 = slicer.util.addVolumeFromArray(np.ones((4, 5, 6), np.float32), np.eye(4), "T1w")
    flat, box = np.full((6, 5, 4), 0.1, np.float32), panel.ui.viewComboBox
    panel._parameterNode.t1 = t1
    for kind, text in (
        ("calibrated standard deviation of the error", "SD of the error (calibrated)"),
        ("standard deviation over seeds", "SD over seeds"),
        ("spread of an ensemble", "Spread of an ensemble"),
        ("none", "Uncertainty"),
    ):
        panel._parameterNode.psr = createPsrVolume(t1, flat, None, {"uncertainty": {"kind": kind}})
        assert box.itemText(1) == text
        assert box.itemData(1) == "uncertainty"
        assert box.itemData(box.currentIndex) == "psr"


def test_a_folder_without_a_model_is_refused(panel, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(tmp_path)))
    before = panel.bundles.path
    with caplog.at_level(logging.ERROR):
        click(panel.ui.browseBundleButton)
    assert "is not a bundle" in caplog.text
    assert panel.bundles.path == before


def test_a_bundle_can_be_browsed_for(panel, tiny_bundle, monkeypatch):
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(tiny_bundle)))
    click(panel.ui.browseBundleButton)
    assert panel._parameterNode.bundle == str(tiny_bundle)
    assert panel.ui.bundleComboBox.currentText == "tiny"
    assert panel.ui.stepsSpinBox.value == 3


def test_the_panel_offers_every_sampler_of_the_core(scanned):
    from DEMISTCore.samplers import SAMPLERS

    panel, _nodes = scanned
    box = panel.ui.samplerComboBox
    offered = {box.itemData(i): box.itemText(i) for i in range(box.count)}
    assert offered.pop("").startswith("Bundle's own (")
    assert offered == {name: sampler.title for name, sampler in SAMPLERS.items()}


@pytest.fixture
def bare(scanned, tmp_path, monkeypatch):
    """The panel where a package is missing that a folder of wheels has; settings of its own."""
    from DEMISTSlicerLib.Install import Place
    from test_environment import wheel

    panel, nodes = scanned
    wheels = tmp_path / "wheels"
    wheel(wheels, "demistpanel", "1.0")
    panel.installer.file = tmp_path / "requirements.txt"
    panel.installer.file.write_text("demistpanel>=1\n")
    before = Place.chosenFolder()
    Place.choose(tmp_path / "Slicer settings")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels).replace(" ", "%20"))
    panel.environment.update()
    panel._updateButtons()
    yield panel, nodes
    panel.installer.shutdown()
    Place.choose(before)


def test_declined_packages_stop_the_run_before_it_starts(bare):
    panel, nodes = bare
    pick(panel.ui.t1Selector, nodes["t1"])
    pick(panel.ui.flairSelector, nodes["flair"])
    asked = []
    panel.installer._confirm = lambda text, packages: asked.append((text, packages)) or False
    click(panel.ui.applyButton)
    ((text, packages),) = asked
    assert packages == ["demistpanel>=1"]
    assert "Slicer's own packages are not touched" in text
    assert not panel.logic.isRunning
    assert not panel.installer.isRunning
    assert "packages are needed" in panel.ui.logTextEdit.plainText
    assert panel.ui.applyButton.enabled
    assert "Not installed" in panel.ui.environmentLabel.text
    assert panel.ui.installButton.enabled
    assert not panel.ui.removeButton.enabled


def test_what_was_asked_for_goes_on_after_the_installation_and_no_second_one_starts(bare, monkeypatch):
    panel, _nodes = bare
    panel.installer._confirm = lambda text, packages: True
    started = []
    monkeypatch.setattr(panel.logic, "simulate", lambda **options: started.append(options))
    click(panel.ui.sampleButton)
    assert panel.installer.isRunning
    assert not panel.ui.sampleButton.enabled
    assert not panel.ui.applyButton.enabled
    assert not panel.ui.installButton.enabled
    assert panel.ui.cancelButton.enabled
    channel = panel.installer._installation._channel
    panel.actions.loadSample()  # as by a key that was in the queue already
    panel.actions.apply()
    assert panel.installer._installation._channel is channel
    assert slicer_app.wait_until(lambda: not panel.installer.isRunning, PATIENCE)
    assert started == [{"wait": False}], panel.ui.logTextEdit.plainText
    assert "demistpanel" in panel.ui.logTextEdit.plainText  # pip's own lines
    assert "Installed" in panel.ui.environmentLabel.text
    assert panel.ui.sampleButton.enabled
    assert panel.ui.repairButton.enabled
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *words, **options: True)
    folder = Path(panel.ui.environmentFolderEdit.text)
    assert folder.is_dir()
    click(panel.ui.removeButton)
    assert slicer_app.wait_until(lambda: not panel.installer.isRunning, PATIENCE)
    assert not folder.exists()
    assert "Not installed" in panel.ui.environmentLabel.text


def test_a_failed_installation_says_why_in_box_and_log(bare, monkeypatch):
    panel, _nodes = bare
    panel.installer.file.write_text("no-such-thing>=1\n")
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **options: told.append((text, options)))
    click(panel.ui.installButton)
    assert slicer_app.wait_until(lambda: told, PATIENCE)
    ((text, options),) = told
    assert text.startswith("There is no no-such-thing>=1 for this Python")
    assert "No matching distribution found" in options["detailedText"]
    assert text in panel.ui.logTextEdit.plainText
    assert "No matching distribution found" in panel.ui.logTextEdit.plainText
    assert panel.ui.stageLabel.text == f"Failed: {text}"


def test_an_installation_can_be_cancelled(bare):
    panel, _nodes = bare
    click(panel.ui.installButton)
    click(panel.ui.cancelButton)
    assert slicer_app.wait_until(lambda: not panel.installer.isRunning, PATIENCE)
    assert panel.ui.stageLabel.text == "Cancelled"
    assert "Not installed" in panel.ui.environmentLabel.text


# --- a person at work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agreed", [True, False])
def test_a_gpu_without_memory_is_left_for_the_cpu_in_one_click(scanned, monkeypatch, agreed):
    """There is no GPU here to be filled: what the worker says of one is put in its mouth (test_worker has the kind)."""
    panel, nodes = scanned
    ui, parameters = panel.ui, panel._parameterNode
    pick(ui.t1Selector, nodes["t1"])
    pick(ui.flairSelector, nodes["flair"])
    panel.logic._worker.devices = [("cuda:0", "NVIDIA"), ("cpu", "CPU")]
    panel._onDevices()
    begun, asked, boxes = [], [], []
    monkeypatch.setattr(panel.logic, "synthesize", lambda _t1, _flair, options, **_more: begun.append(options.device))
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, *_more, **_options: asked.append(text) or agreed
    )
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_options: boxes.append(text))
    click(ui.applyButton)
    panel.logic.failed.emit("memory", "There is not enough memory.")
    slicer_app.process_events(0.05)
    assert len(asked) == 1
    assert "There is not enough memory." in asked[0]
    assert boxes == []
    assert begun == (["auto", "cpu"] if agreed else ["auto"])
    assert parameters.device == ("cpu" if agreed else "auto")
    assert (ui.deviceComboBox.currentText == "CPU") is agreed
    # On the CPU there is nothing else to offer; nor for what no GPU computes.
    parameters.device = "cpu"
    panel.logic.failed.emit("memory", "There is not enough memory.")
    parameters.device = "auto"
    panel.actions.run(lambda: None)
    panel.logic.failed.emit("memory", "Still not.")
    slicer_app.process_events(0.05)
    assert len(asked) == 1
    assert boxes == ["There is not enough memory.", "Still not."]
    # A synthetic T1w is made on the device that is chosen, and goes to the CPU likewise.
    made = []
    monkeypatch.setattr(panel.logic, "generateT1w", lambda **told: made.append(told["device"]))
    panel.actions.generate()
    panel.logic.failed.emit("memory", "Too little.")
    slicer_app.process_events(0.05)
    assert made == (["auto", "cpu"] if agreed else ["auto"])
    assert len(asked) == 2


@pytest.mark.slow
def test_a_person_makes_a_map_cancels_another_measures_saves_and_reloads(scanned, tmp_path, monkeypatch):
    panel, nodes = scanned
    ui, parameters = panel.ui, panel._parameterNode
    pick(ui.t1Selector, nodes["t1"])
    pick(ui.flairSelector, nodes["flair"])
    pick(ui.brainMaskSelector, nodes["mask"])
    pick(ui.lesionsSelector, nodes["lesions"])
    type_number(ui.seedsSpinBox, 2)
    type_number(ui.stepsSpinBox, 2)
    assert ui.cancelButton.enabled is False

    # Apply, and watch the bar.
    seen = []
    panel.logic.progressChanged.connect(lambda *told: seen.append((ui.progressBar.value, ui.stageLabel.text)))
    click(ui.applyButton)
    assert panel.logic.isRunning
    assert not ui.applyButton.enabled
    assert ui.cancelButton.enabled
    run_to_end(panel)
    assert parameters.psr is not None, ui.logTextEdit.plainText
    values = [value for value, _text in seen]
    assert values == sorted(values)
    assert len({text for _value, text in seen}) > 3
    assert ui.stageLabel.text.startswith("Done in")
    assert ui.stageLabel.text.endswith("2 samples")
    psr, uncertainty = parameters.psr, parameters.uncertainty
    assert uncertainty is not None
    assert ui.psrSelector.currentNode() is psr
    assert slicer.util.arrayFromVolume(psr).shape == slicer.util.arrayFromVolume(nodes["t1"]).shape
    assert ui.overlayButton.checked  # it is shown at once
    assert ui.applyButton.enabled
    assert not ui.cancelButton.enabled

    # The display: opacity by the slider, the uncertainty, off and on again.
    parameters.opacity = 0.8
    assert panel.overlay.opacity == pytest.approx(0.8)
    ui.viewComboBox.setFocus()
    QTest.keyClick(ui.viewComboBox, Qt.Key.Key_End)
    assert panel.overlay.view == "uncertainty"
    click(ui.overlayButton)
    assert not panel.overlay.isShown
    click(ui.overlayButton)
    assert panel.overlay.isShown
    first = slicer.util.arrayFromVolume(psr).copy()

    # Apply again, but cancel: the scene is as it was.
    type_number(ui.stepsSpinBox, 400)
    count = slicer.mrmlScene.GetNumberOfNodes()
    click(ui.applyButton)
    assert slicer_app.wait_until(lambda: ui.progressBar.value > 0, PATIENCE)
    click(ui.cancelButton)
    assert slicer_app.wait_until(lambda: not panel.logic.isRunning, 20)
    slicer_app.process_events(0.05)
    assert ui.stageLabel.text == "Cancelled"
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert np.array_equal(slicer.util.arrayFromVolume(psr), first)

    # And again: the same seeds give the same map, into the same node.
    type_number(ui.stepsSpinBox, 2)
    click(ui.applyButton)
    run_to_end(panel)
    assert parameters.psr is psr
    assert np.array_equal(slicer.util.arrayFromVolume(psr), first)

    # Statistics, a click on a lesion, export.
    click(ui.statisticsButton)
    run_to_end(panel)
    table = parameters.statisticsTable
    assert table is not None, ui.logTextEdit.plainText
    assert ui.statisticsTable.rowCount == table.GetNumberOfRows() > 3
    names = [ui.statisticsTable.item(row, 0).text() for row in range(ui.statisticsTable.rowCount)]
    assert "Lesions" in names
    from DEMISTSlicerLib.Views.Jump import lesionOfRow

    row = next(row for row in range(table.GetNumberOfRows()) if lesionOfRow(table, row))
    cell = ui.statisticsTable.visualItemRect(ui.statisticsTable.item(row, 0)).center()
    jumped = []
    monkeypatch.setattr("DEMISTSlicerLib.Views.Jump.jumpToRow", lambda *where: jumped.append(where))
    ui.statisticsTable.scrollToItem(ui.statisticsTable.item(row, 0))
    cell = ui.statisticsTable.visualItemRect(ui.statisticsTable.item(row, 0)).center()
    QTest.mouseClick(ui.statisticsTable.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(cell.x(), cell.y()))
    assert jumped == [(table, row)]
    out = tmp_path / "numbers.csv"
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *_: str(out)))
    click(ui.exportButton)
    assert len(out.read_text(encoding="utf-8").splitlines()) == table.GetNumberOfRows() + 1

    # Save the scene, close it, load it: everything chosen is back.
    parameters.distalMm = 12.0
    scene, file = slicer.mrmlScene, tmp_path / "scene.mrb"
    assert scene.WriteToMRB(str(file))
    slicer_app.fresh_scene()
    slicer_app.process_events()
    assert ui.t1Selector.currentNode() is None
    assert not panel.overlay.isShown
    assert scene.ReadFromMRB(str(file), True)
    slicer_app.process_events()
    again = panel._parameterNode
    assert again.distalMm == 12.0
    assert ui.distalSpinBox.value == 12.0
    assert again.t1.GetName() == "MPRAGE"
    assert ui.psrSelector.currentNode().GetName() == again.psr.GetName()
    assert ui.statisticsTable.rowCount == again.statisticsTable.GetNumberOfRows()
    assert np.allclose(slicer.util.arrayFromVolume(again.psr), first, atol=1e-6)
    assert ui.applyButton.enabled
    click(ui.overlayButton)
    assert panel.overlay.isShown


@pytest.mark.slow
def test_a_warning_of_the_preparation_is_seen_where_the_run_ended(scanned):
    """From the preparation in the worker to the sidecar and to the line under the progress bar."""
    panel, nodes = scanned
    mask = slicer.util.arrayFromVolume(nodes["mask"])
    middle = tuple(int(np.median(axis)) for axis in np.nonzero(mask))
    mask[middle] = 0  # a hole, which is filled
    slicer.util.arrayFromVolumeModified(nodes["mask"])
    for selector, key in (("t1Selector", "t1"), ("flairSelector", "flair"), ("brainMaskSelector", "mask")):
        pick(getattr(panel.ui, selector), nodes[key])
    type_number(panel.ui.seedsSpinBox, 1)
    type_number(panel.ui.stepsSpinBox, 1)
    click(panel.ui.applyButton)
    run_to_end(panel)
    text = panel.ui.stageLabel.text
    assert "Warning: " in text, panel.ui.logTextEdit.plainText
    assert "(voxels: 1) were filled" in text
    assert text.partition("Warning: ")[2].splitlines()[0] in panel.ui.logTextEdit.plainText


@pytest.mark.slow
def test_an_impossible_brain_is_refused_until_the_box_says_that_it_is_right(scanned, caplog):
    panel, nodes = scanned
    ui, mask = panel.ui, slicer.util.arrayFromVolume(nodes["mask"])
    middle = [int(np.median(axis)) for axis in np.nonzero(mask)]
    keep = tuple(slice(m - 4, m + 4) for m in middle)
    block = mask[keep].copy()
    mask[:] = 0
    mask[keep] = block
    slicer.util.arrayFromVolumeModified(nodes["mask"])
    for selector, key in (("t1Selector", "t1"), ("flairSelector", "flair"), ("brainMaskSelector", "mask")):
        pick(getattr(ui, selector), nodes[key])
    type_number(ui.seedsSpinBox, 1)
    type_number(ui.stepsSpinBox, 1)
    click(ui.applyButton)
    run_to_end(panel)
    assert "in Slicer the box below the brain mask" in caplog.text
    assert panel._parameterNode.psr is None
    click(ui.anyBrainVolumeCheckBox)
    click(ui.applyButton)
    run_to_end(panel)
    assert panel._parameterNode.psr is not None, ui.logTextEdit.plainText
    pick(ui.t1Selector, nodes["flair"])
    assert not ui.anyBrainVolumeCheckBox.checked, "what was confirmed is another image's brain"


def test_closing_the_scene_in_the_middle_of_a_run_is_safe(scanned):
    panel, nodes = scanned
    pick(panel.ui.t1Selector, nodes["t1"])
    pick(panel.ui.flairSelector, nodes["flair"])
    pick(panel.ui.brainMaskSelector, nodes["mask"])
    type_number(panel.ui.stepsSpinBox, 400)
    click(panel.ui.applyButton)
    assert panel.logic.isRunning
    slicer_app.fresh_scene()
    assert slicer_app.wait_until(lambda: not panel.logic.isRunning, 20)
    slicer_app.process_events(0.1)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert not panel.ui.applyButton.enabled
    assert not panel.ui.cancelButton.enabled
    assert panel._parameterNode is not None


def show_section(panel, name: str) -> None:
    """Open a section of the panel and let it be laid out: a click needs a place."""
    section = getattr(panel.ui, name)
    section.collapsed = False
    slicer_app.process_events(0.05)


def node_names() -> list[str]:
    scene = slicer.mrmlScene
    return sorted(scene.GetNthNode(i).GetName() or "" for i in range(scene.GetNumberOfNodes()))


def test_charts_are_shown_by_click_and_made_anew_in_their_nodes(panel):
    """A measured map: statistics, ROC, box plots; computed again, nothing piles up."""
    from DEMISTSlicerLib.Views.Overlay import LAYOUTS

    psr, lesions, t1, brain = measured_brain()
    ui, parameters, scene = panel.ui, panel._parameterNode, slicer.mrmlScene
    show_section(panel, "statisticsCollapsibleButton")
    for selector, node in (
        (ui.t1Selector, t1),
        (ui.psrSelector, psr),
        (ui.lesionsSelector, lesions),
        (ui.brainMaskSelector, brain),
    ):
        pick(selector, node)
    type_number(ui.gapSpinBox, 1)
    type_number(ui.proximalSpinBox, 4)
    type_number(ui.distalSpinBox, 6)
    assert not ui.rocButton.enabled
    assert not ui.boxPlotButton.enabled
    click(ui.statisticsButton)
    run_to_end(panel)
    table = parameters.statisticsTable
    assert table is not None, ui.logTextEdit.plainText
    roc, boxes = (table.GetNodeReference(role) for role in ("DEMIST.ROC", "DEMIST.BoxPlot"))
    selection = slicer.app.applicationLogic().GetSelectionNode()
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode") or scene.AddNode(slicer.vtkMRMLLayoutNode())
    for button, chart in ((ui.rocButton, roc), (ui.boxPlotButton, boxes)):
        assert button.enabled
        click(button)
        assert selection.GetActivePlotChartID() == chart.GetID()
        assert selection.GetActiveTableID() == table.GetID()
        assert layout.GetViewArrangement() == LAYOUTS["statistics"]

    # Again, with other distances: into the same nodes. Edited by hand, regions are left alone.
    before = scene.GetNumberOfNodes()
    type_number(ui.distalSpinBox, 7)
    click(ui.statisticsButton)
    run_to_end(panel)
    assert parameters.statisticsTable is table
    assert table.GetNodeReference("DEMIST.ROC") is roc
    assert table.GetNodeReference("DEMIST.BoxPlot") is boxes
    assert scene.GetNumberOfNodes() == before
    made = table.GetNodeReference("DEMIST.Segmentation")
    segment = made.GetSegmentation().GetNthSegment(0)
    segment.GetRepresentation("Binary labelmap").Modified()  # as the Segment Editor does
    click(ui.statisticsButton)
    run_to_end(panel)
    assert table.GetNodeReference("DEMIST.Segmentation") is not made
    assert made.GetScene() is scene
    count = scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode")

    # No lesions any more: no ROC chart, and none of the old one's parts.
    pick(ui.lesionsSelector, None)
    click(ui.statisticsButton)
    run_to_end(panel)
    assert parameters.statisticsTable is table
    assert not ui.rocButton.enabled
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == count - 1
    assert ui.boxPlotButton.enabled

    # None chosen keeps the table and makes another.
    pick(ui.tableSelector, None)
    click(ui.statisticsButton)
    run_to_end(panel)
    assert parameters.statisticsTable is not table
    assert table.GetScene() is scene


def test_nothing_observes_the_parameters_when_the_panel_is_left(panel):
    """What Slicer 5.10 leaves there crashes it: Python collects the function, VTK calls it."""
    node = panel.logic.getParameterNode()
    assert node.HasObserver(vtk.vtkCommand.ModifiedEvent)
    panel.exit()
    gc.collect()  # a wrapper that caches takes its own observers with it
    assert not node.HasObserver(vtk.vtkCommand.ModifiedEvent)
    node.Modified()
    panel.enter()
    click(panel.ui.livePreviewCheckBox)
    assert panel._parameterNode.livePreview == panel.ui.livePreviewCheckBox.checked


def test_the_box_for_an_unusual_brain_speaks_to_statistics_too(panel, monkeypatch):
    psr, lesions, t1, brain = measured_brain()
    asked = []
    monkeypatch.setattr(panel.logic._runs, "run", lambda task, *_: asked.append(task.request))
    for selector, node in ((panel.ui.t1Selector, t1), (panel.ui.psrSelector, psr)):
        pick(selector, node)
    show_section(panel, "statisticsCollapsibleButton")
    click(panel.ui.statisticsButton)
    click(panel.ui.anyBrainVolumeCheckBox)
    click(panel.ui.statisticsButton)
    assert [request["any_brain_volume"] for request in asked] == [False, True]
    assert all(request["do"] == "statistics" for request in asked)


def test_a_measured_map_that_lies_off_the_t1w_is_told_where_nobody_can_miss_it(panel):
    from test_measured import folded_head

    condition, brain, psr = folded_head(1, (60, 70, 60), 1.0)
    shifted = psr.affine.copy()
    shifted[0, 3] += 4
    drawn = np.zeros(psr.shape, np.uint8)
    drawn[18:21, 34:37, 28:31] = 1
    t1, there, off, lesions = (
        slicer.util.addVolumeFromArray(np.ascontiguousarray(array.T), affine, name, f"vtkMRML{kind}Node")
        for array, affine, name, kind in (
            (1000 * condition[0], brain.affine, "T1w", "ScalarVolume"),
            (psr.array, psr.affine, "Measured", "ScalarVolume"),
            (psr.array, shifted, "Measured elsewhere", "ScalarVolume"),
            (drawn, brain.affine, "Drawn", "LabelMapVolume"),
        )
    )
    pick(panel.ui.t1Selector, t1)
    pick(panel.ui.lesionsSelector, lesions)
    show_section(panel, "statisticsCollapsibleButton")
    told = {}
    for node in (there, off):
        pick(panel.ui.psrSelector, node)
        click(panel.ui.statisticsButton)
        run_to_end(panel)
        told[node] = panel.ui.stageLabel.text
        panel._parameterNode.statisticsTable = None
    assert "Done in" in told[there]
    assert "Warning" not in told[there]
    assert "Done in" in told[off]
    assert "Warning: The PSR map" in told[off]
    assert "fits the T1w better" in told[off]
    assert "fits the T1w better" in panel.ui.logTextEdit.plainText


def measured_brain() -> tuple:
    """A PSR map of a brain with a lesion, the lesion, the T1w and the brain, as nodes."""
    rng = np.random.default_rng(2)
    shape = (48, 44, 40)
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    brain = (x / 21) ** 2 + (y / 20) ** 2 + (z / 18) ** 2 < 1
    white = (x / 16) ** 2 + (y / 15) ** 2 + (z / 13) ** 2 < 1
    lesion = (x - 9) ** 2 + y**2 + z**2 < 9
    psr = brain * (np.select([lesion, white, brain], [0.06, 0.12, 0.07]) + 0.004 * rng.standard_normal(shape))
    t1 = brain * (np.select([lesion, white, brain], [700.0, 900.0, 600.0]) + rng.normal(0, 12, shape))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    volume, label = "vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode"
    return tuple(
        slicer.util.addVolumeFromArray(np.ascontiguousarray(array.T), affine, name, kind)
        for array, name, kind in (
            (psr.astype(np.float32), "Measured", volume),
            (lesion.astype(np.uint8), "Drawn", label),
            (t1.astype(np.float32), "T1w", volume),
            (brain.astype(np.uint8), "Brain", label),
        )
    )


@pytest.mark.slow
def test_lesions_are_suggested_by_click(panel):
    from DEMISTSlicerLib.Nodes.Segmentation import isSuggested, segmentationToLabelmap
    from test_slicer_logic import thick_pair

    t1w, flair, lesion = thick_pair()
    nodes = [
        slicer.util.addVolumeFromArray(np.ascontiguousarray(array.T), affine, name)
        for (array, affine), name in ((t1w, "sub-01_T1w"), (flair, "sub-01_FLAIR"))
    ]
    show_section(panel, "statisticsCollapsibleButton")
    pick(panel.ui.t1Selector, nodes[0])
    pick(panel.ui.flairSelector, nodes[1])
    assert panel._parameterNode.lesions is None
    click(panel.ui.suggestButton)
    assert panel.logic.isRunning
    assert not panel.ui.suggestButton.enabled
    run_to_end(panel)
    made = panel._parameterNode.lesions  # chosen at once, for the statistics that follow
    assert made is not None, panel.ui.logTextEdit.plainText
    assert panel.ui.lesionsSelector.currentNode() is made
    assert isSuggested(made)
    assert panel.ui.checkedButton.enabled
    found = segmentationToLabelmap(made, nodes[0]) > 0
    assert (found & lesion).sum() > 0.5 * lesion.sum()  # how good it is is tested with the regions
    assert found.sum() < 0.1 * (t1w[0] > 0).sum()
    assert panel.ui.suggestButton.enabled
    click(panel.ui.checkedButton)
    assert not isSuggested(made)
    assert not panel.ui.checkedButton.enabled


def test_a_synthetic_t1w_is_generated_by_click(panel, tmp_path, monkeypatch):
    from published_data import write_published

    folder = write_published(tmp_path / "brain-ldm")
    ui = panel.ui
    show_section(panel, "generateCollapsibleButton")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(folder)))
    click(ui.browseGenerateButton)
    assert ui.generateBundleEdit.text == str(folder)
    type_number(ui.ageSpinBox, "0.7")
    type_number(ui.sexSpinBox, 1)
    type_number(ui.generateStepsSpinBox, 2)
    type_number(ui.generateSeedSpinBox, 3)
    # A whole head takes minutes here; everything else is as it is.
    generate = panel.logic.generateT1w
    monkeypatch.setattr(panel.logic, "generateT1w", lambda **given: generate(**given, shape=(32, 32, 32)))
    before = node_names()
    click(ui.generateButton)
    assert panel.logic.isRunning
    assert not ui.generateButton.enabled
    run_to_end(panel)
    assert ui.stageLabel.text.startswith("Done in"), ui.logTextEdit.plainText
    (made,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert slicer.util.arrayFromVolume(made).shape == (32, 32, 32)
    assert made.GetName() not in before
    request = json.loads(made.GetAttribute("DEMIST.Provenance"))["request"]
    assert (request["age"], request["sex"], request["steps"], request["seed"]) == (0.7, 1.0, 2, 3)
    assert made.GetAttribute("DEMIST.Synthetic") == "1"


def test_the_estimate_is_seen_in_the_slice_view_while_it_runs(panel, head, tiny_bundle):
    """Slicer's own slice view, off screen: coloured while sampling, the T1w's grey before."""
    from slicer_views import picture, views

    views()
    nodes = [load(head.t1w, "T1w"), load(head.flair, "FLAIR")]
    mask = load(head.mask, "brain", "vtkMRMLLabelMapVolumeNode")
    panel.bundles.refresh(str(tiny_bundle))
    panel._onBundleChosen(str(tiny_bundle))
    ui, red = panel.ui, views()["Red"]
    pick(ui.t1Selector, nodes[0])
    pick(ui.flairSelector, nodes[1])
    pick(ui.brainMaskSelector, mask)
    type_number(ui.seedsSpinBox, 1)
    type_number(ui.stepsSpinBox, 12)
    composite = red._logic.GetSliceCompositeNode()
    composite.SetBackgroundVolumeID(nodes[0].GetID())
    composite.SetForegroundVolumeID(None)

    def coloured() -> int:
        pixels = picture(red).astype(int)
        return int((pixels.max(2) - pixels.min(2) > 20).sum())

    plain = coloured()
    seen = []

    def look(node):
        slicer_app.process_events()
        shown = composite.GetForegroundVolumeID() == node.GetID()
        seen.append((shown, coloured(), panel.logic.isRunning, node.GetName()))

    handle = panel.logic.previewUpdated.connect(look)
    assert ui.livePreviewCheckBox.checked
    click(ui.applyButton)
    run_to_end(panel)
    panel.logic.previewUpdated.disconnect(handle)
    assert seen, ui.logTextEdit.plainText
    shown, pixels, running, name = seen[0]
    assert shown
    assert running
    assert pixels > plain + 500
    assert name == "PSR preview: seed 0, step 1 of 12"
    assert not [name for name in node_names() if "preview" in name]
    assert composite.GetForegroundVolumeID() == panel._parameterNode.psr.GetID()  # the result took its place

    # Not asked for, it does not come.
    seen.clear()
    handle = panel.logic.previewUpdated.connect(look)
    click(ui.livePreviewCheckBox)
    click(ui.applyButton)
    run_to_end(panel)
    panel.logic.previewUpdated.disconnect(handle)
    assert not seen


# --- reload ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def submodules():
    """Afterwards the submodules are those that other tests have imported, in this file and in others."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "DEMISTSlicerLib"}
    yield
    slicer_app.close_module()
    slicer_app.process_events()
    for name in [name for name in sys.modules if name.split(".")[0] == "DEMISTSlicerLib"]:
        del sys.modules[name]
    sys.modules.update(before)
    for name, module in before.items():  # import ... as looks at the package's attributes
        package, _, own = name.rpartition(".")
        if package in before:
            setattr(before[package], own, module)


def test_reload_takes_the_submodules_with_it_and_leaves_nothing_behind(submodules, panel):
    import DEMISTSlicerLib.Panel.Widget

    old, first_ui = DEMISTSlicerLib.Panel.Widget, panel.ui
    parameters = panel._parameterNode.parameterNode
    before = parameters.HasObserver(vtk.vtkCommand.ModifiedEvent)
    assert before
    panel._parameterNode.seeds = 5
    panel.onReload()
    slicer_app.process_events()
    fresh = slicer.util.getModuleWidget("DEMISTSlicer")
    assert fresh is not panel
    assert sys.modules["DEMISTSlicerLib.Panel.Widget"] is not old
    assert type(fresh).__mro__[1] is sys.modules["DEMISTSlicerLib.Panel.Widget"].DEMISTSlicerWidget
    assert fresh.ui is not first_ui
    assert fresh.ui.seedsSpinBox.value == 5  # what was chosen is in the scene
    assert panel.logic is None  # the old one let go
    assert panel._parameterNode is None
    assert slicer.util.getModuleLogic("DEMISTSlicer") is fresh.logic


def test_cleanup_removes_every_observer():
    slicer_app.close_module()
    scene = slicer_app.fresh_scene()
    events = [scene.StartCloseEvent, scene.EndCloseEvent, scene.EndImportEvent, scene.NodeAddedEvent]
    before = [scene.HasObserver(event) for event in events]
    widget = slicer_app.open_module().widgetRepresentation().self()
    node = widget._parameterNode.parameterNode
    assert len(widget.Observations) == 4  # three of the scene, one of the parameter node
    assert all(scene.HasObserver(event) for event in events)
    slicer_app.close_module()
    slicer_app.process_events(0.05)
    assert widget.Observations == []
    assert not node.HasObserver(vtk.vtkCommand.ModifiedEvent)
    assert [scene.HasObserver(event) for event in events] == before
    slicer_app.fresh_scene()
    assert widget._parameterNode is None


def test_the_table_shows_the_interval_of_each_mean(panel):
    """After the volume; the spread of seeds is not shown beside it, where it could be taken for an error bar."""
    from DEMISTSlicerLib.Nodes import Tables

    row = {
        "region": "nawm",
        "lesion": None,
        "name": "NAWM",
        "volume_ml": 312.5,
        "mean": 0.1204,
        "sd": 0.01,
        "median": 0.12,
        "uncertainty": 0.008,
        "seed_sd": 0.0004,
    }
    interval = {"mean_ci90_low": 0.1101, "mean_ci90_high": 0.1307}
    columns = ["region", "lesion", "name", "volume_ml", "mean", *interval, "sd", "median", "uncertainty", "seed_sd"]
    shown = panel.ui.statisticsTable
    for known in (interval, {}):
        panel._parameterNode.statisticsTable = Tables.statisticsTable([row | known], columns)
        slicer_app.process_events()
        titles = [shown.horizontalHeaderItem(place).text() for place in range(shown.columnCount)]
        cells = [shown.item(0, place).text() for place in range(shown.columnCount)]
        assert titles[:3] == ["region", "mL", "mean"]
        assert cells[:3] == ["NAWM", "312", "0.120"]
        if known:
            assert (titles[3], cells[3]) == ("90 % interval", "0.110-0.131")
            assert not any("seeds" in title for title in titles)
        else:
            assert titles[3] == "SD over seeds (no error bar)"
            assert not any("90 %" in title for title in titles)
    panel._parameterNode.unit = "percent"
    assert (shown.horizontalHeaderItem(2).text(), shown.item(0, 2).text()) == ("mean", "12.0 %")
    assert panel.ui.unitComboBox.currentText.startswith("Percent")


def test_the_table_sorts_by_size_moves_by_keys_and_takes_no_room_before_there_is_one(panel, monkeypatch):
    from DEMISTSlicerLib.Nodes import Tables

    shown, jumped = panel.ui.statisticsTable, []
    assert not shown.isVisible()
    rows = [
        {"region": "lesion", "lesion": number or None, "name": name, "volume_ml": size, "mean": mean}
        for number, name, size, mean in (
            (0, "Lesions", 12.0, 0.07),
            (1, "Lesion 1", 9.5, 0.06),
            (2, "Lesion 2", 2.5, 0.09),
        )
    ]
    table = Tables.statisticsTable(rows, ["region", "lesion", "name", "volume_ml", "mean"])
    monkeypatch.setattr("DEMISTSlicerLib.Views.Jump.jumpToRow", lambda node, row: jumped.append(row))
    panel._parameterNode.statisticsTable = table
    slicer_app.process_events()
    assert shown.isVisible()

    def names() -> list[str]:
        return [shown.item(row, 0).text() for row in range(shown.rowCount)]

    assert names() == ["Lesions", "Lesion 1", "Lesion 2"]
    shown.sortItems(1, Qt.SortOrder.AscendingOrder)  # 2.5, 9.5, 12: by size, not by letters
    assert names() == ["Lesion 2", "Lesion 1", "Lesions"]
    shown.setFocus()
    shown.setCurrentCell(0, 0)
    QTest.keyClick(shown, Qt.Key.Key_Down)
    assert jumped == [2, 1]  # rows of the table node, however the panel sorts them


def test_apply_waits_until_doubtful_images_are_confirmed(scanned):
    panel, nodes = scanned
    ui, box = panel.ui, panel.ui.confirmInputsCheckBox
    pick(ui.t1Selector, nodes["t1"])
    pick(ui.flairSelector, nodes["flair"])
    assert ui.applyButton.enabled
    assert not box.isVisible()
    pick(ui.t1Selector, nodes["flair"])
    pick(ui.flairSelector, nodes["t1"])
    assert "swapped" in ui.inputsHintLabel.text
    assert box.isVisible()
    assert not ui.applyButton.enabled
    assert "Confirm" in ui.applyButton.toolTip
    assert not ui.suggestButton.enabled
    click(box)
    assert ui.applyButton.enabled
    pick(ui.t1Selector, nodes["t1"])  # another pair: asked anew
    pick(ui.flairSelector, nodes["flair"])
    assert not box.isVisible()
    assert ui.applyButton.enabled
    matrix = vtk.vtkMatrix4x4()
    nodes["flair"].GetIJKToRASMatrix(matrix)
    matrix.SetElement(0, 3, 5000.0)
    nodes["flair"].SetIJKToRASMatrix(matrix)
    panel._updateButtons()
    assert "do not overlap" in ui.inputsHintLabel.text
    assert not ui.applyButton.enabled


def test_two_patients_or_studies_are_not_taken_for_one(monkeypatch):
    from DEMISTSlicerLib.Nodes import Inputs

    slicer_app.fresh_scene()
    asked = []

    class Database:
        isOpen, databaseFilename = True, "db"
        values: dict = {}  # noqa: RUF012

        def instanceValue(self, instance: str, tag: str) -> str:
            asked.append((instance, tag))
            return self.values.get((instance, tag), "")

    database = Database()
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    pair = []
    for name in ("T1w", "FLAIR"):
        node = slicer.util.addVolumeFromArray(np.ones((4, 5, 6), np.float32), np.eye(4), name)
        node.SetAttribute("DICOM.instanceUIDs", f"1.{name}")
        pair.append(node)
    for patients, studies, word in (
        (("a", "a"), ("1", "1"), ""),
        (("a", "b"), ("1", "1"), "same patient"),
        (("a", "a"), ("1", "2"), "same study"),
        (("a", ""), ("1", ""), ""),
    ):
        Inputs._KNOWN.clear()
        for node, patient, study in zip(pair, patients, studies):
            uid = node.GetAttribute("DICOM.instanceUIDs")
            database.values |= {(uid, "0010,0020"): patient, (uid, "0020,000D"): study}
        assert (word in Inputs.doubtOf(*pair)) if word else Inputs.doubtOf(*pair) == ""
    asked.clear()
    assert Inputs.doubtOf(*pair) == ""
    assert not asked  # known by now: the disk is left alone
    slicer_app.fresh_scene()


def test_the_result_line_tells_means_with_intervals_only_where_there_are_some(panel):
    from DEMISTSlicerLib.Panel.Units import sanityText

    white, grey = {"mean": 0.118, "low": 0.109, "high": 0.1272}, {"mean": 0.0614, "low": None, "high": None}
    told = {"nawm": white, "grey_matter": grey}
    assert sanityText(told, "fraction") == "PSR: white matter 0.118, 90 % interval 0.109-0.127; grey matter 0.061"
    assert sanityText(told, "percent") == "PSR: white matter 11.8 %, 90 % interval 10.9-12.7 %; grey matter 6.1 %"
    assert sanityText({}, "percent") == ""
    psr, _lesions, _t1, _brain = measured_brain()
    assert not panel.ui.resultLabel.isVisible()
    panel._parameterNode.psr = psr
    panel.progress.tell(psr, told, "fraction")
    assert panel.ui.resultLabel.isVisible()
    panel._parameterNode.unit = "percent"
    assert "11.8 %" in panel.ui.resultLabel.text
    panel._parameterNode.psr = None
    assert not panel.ui.resultLabel.isVisible()
