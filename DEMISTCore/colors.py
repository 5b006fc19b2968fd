"""One color per region: in charts, in figures, on slices, in the legend of a sketch.

Nothing is imported, so that a program that only shows results can hold them.

Regions that are shown together stay apart in the eyes of people without red, green or blue cones (checked by a test
with the simulation of Machado, Oliveira, Fernandes, *IEEE Trans Vis Comput Graph* 15:1291, 2009): at least 18 steps of
CIE 1976 L*a*b* between any two. Lesions, proximal and distal NAWM are outlines, too, so they also stand out from white
matter in the colors of a PSR map, and from a white ground.
"""

from __future__ import annotations

#: Hexadecimal red, green, blue by key of :data:`DEMISTCore.regions.REGIONS`.
REGION_COLORS = {
    "lesion": "#19b3e6",
    "black_hole": "#800000",
    "nawm": "#000000",
    "nawm_proximal": "#d65cb8",
    "nawm_middle": "#600080",
    "nawm_distal": "#3333ff",
    "grey_matter": "#7f7f7f",
    "white_matter": "#c8c8c8",
    "csf": "#e63900",
}
#: What is drawn as an outline over a map: the last one on top.
OUTLINED = ("nawm_distal", "nawm_proximal", "lesion")
