"""The model: bundles that were found, one browsed for, and what a person should know of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import qt
import slicer

from ..I18n import _
from .Choice import Choice


class BundleChooser:
    """Combo box of bundles, a button to browse for another, and a line about the one that is chosen.

    Args:
        ui: the panel's widgets: ``bundleComboBox``, ``browseBundleButton``, ``bundleNoteLabel``.
        bundles: gives what was found: dicts with ``name``, ``path``, ``description``, ``simulated``, ``licence`` and
            ``card`` (text), ``mean`` (it has a network for the mean) and ``sampling`` (what is recommended), the
            default first.
        describe: gives the same about one folder; None if it holds no model that can be read.
        onChosen: called with the path that the user chose.
    """

    def __init__(
        self,
        ui: Any,
        bundles: Callable[[], list[dict[str, Any]]],
        describe: Callable[[str], dict[str, Any] | None],
        onChosen: Callable[[str], object],
    ) -> None:
        self.ui = ui
        self._bundles = bundles
        self._describe = describe
        self._onChosen = onChosen
        self.found: dict[str, dict[str, Any]] = {}
        self.choice = Choice(ui.bundleComboBox, self._chosen)
        ui.browseBundleButton.connect("clicked()", self.browse)

    def disconnect(self) -> None:
        """Hear no more of the widgets."""
        self.choice.disconnect()
        self.ui.browseBundleButton.disconnect("clicked()", self.browse)

    def refresh(self, path: str = "") -> None:
        """Look for bundles and show the one at ``path``; the default where it is empty or no longer there."""
        self.found = {str(bundle["path"]): bundle for bundle in self._bundles()}
        if path and path not in self.found and (Path(path) / "bundle.json").is_file():
            self.found[path] = {**(self._describe(path) or self._read(Path(path))), "path": path}
        items = []
        for index, (place, bundle) in enumerate(self.found.items()):
            text = _("{name} (default)").format(name=bundle["name"]) if index == 0 else bundle["name"]
            items.append((place, text, self._tip(bundle)))
        if path and path not in self.found:  # of a saved scene, say: never silently another model
            items.append((path, _("{name} (not found)").format(name=Path(path).name), path))
        self.choice.fill(items, path)
        self._note()

    @property
    def path(self) -> str:
        """Folder of the bundle that is chosen; empty where there is none."""
        return self.choice.value

    @property
    def sampling(self) -> dict[str, Any]:
        """What the chosen bundle recommends, its base's and DEMIST's own advice filled in: ``mode``, ``sampler``,
        ``steps``, ``seeds``, ``guidance`` (weight by stream, empty: plain); empty if there is no bundle."""
        return dict(self.found.get(self.path, {}).get("sampling") or {})

    @property
    def hasMean(self) -> bool:
        """Whether the chosen bundle has a network for the mean."""
        return bool(self.found.get(self.path, {}).get("mean"))

    def browse(self) -> None:
        """Let the user choose a folder."""
        folder = qt.QFileDialog.getExistingDirectory(
            None, _("Folder of a bundle"), str(Path(self.path).parent) if self.path else ""
        )
        if not folder:
            return
        if not (Path(folder) / "bundle.json").is_file():
            slicer.util.errorDisplay(
                _("{folder} is not a bundle: it holds no bundle.json; choose the folder that does.").format(
                    folder=folder
                )
            )
            return
        self.refresh(folder)
        self._onChosen(folder)

    def _chosen(self, path: str) -> None:
        self._note()
        self._onChosen(path)

    def _note(self) -> None:
        bundle = self.found.get(self.path)
        if bundle is None:
            self.ui.bundleNoteLabel.text = _("No model was found; choose the folder of one.")
            self.ui.bundleComboBox.toolTip = self.ui.bundleNoteLabel.text
            return
        trained = _("Trained on simulated PSR.") if bundle.get("simulated") else _("Trained on measured PSR.")
        self.ui.bundleNoteLabel.text = _("{trained} Research use only. Licence: {licence}.").format(
            trained=trained, licence=bundle.get("licence") or _("not stated")
        )
        self.ui.bundleComboBox.toolTip = self.ui.bundleNoteLabel.toolTip = self._tip(bundle)

    @staticmethod
    def _tip(bundle: dict[str, Any]) -> str:
        """Description, licence, place and the beginning of the model card, as rich text that wraps."""
        card = str(bundle.get("card") or "").strip()
        if len(card) > 1500:
            card = card[:1500].rsplit("\n", 1)[0] + "\n..."
        rows = [f"<b>{escape(str(bundle['name']))}</b>: {escape(str(bundle.get('description') or ''))}"]
        rows.append(_("Licence: {licence}").format(licence=escape(str(bundle.get("licence") or _("not stated")))))
        rows.append(escape(str(bundle["path"])))
        text = "<br>".join(rows)
        return f"<p>{text}</p><p>{escape(card).replace(chr(10), '<br>')}</p>" if card else f"<p>{text}</p>"

    @staticmethod
    def _read(folder: Path) -> dict[str, Any]:
        """What a folder says of itself."""
        described: dict[str, Any] = {"name": folder.name, "path": str(folder)}
        try:
            told = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
            described |= {key: told.get(key) for key in ("description", "licence", "simulated")}
            described["name"] = told.get("name") or folder.name
            card = folder / "MODEL_CARD.md"
            described["card"] = card.read_text(encoding="utf-8") if card.is_file() else ""
        except (OSError, ValueError):
            described["description"] = _("its bundle.json cannot be read")
        return described
