"""What is compared: every method as something that turns a case into one or several named maps.

One file per method or family: :mod:`.lookups` (tissue means), :mod:`.local` (a few coefficients), :mod:`.regression`
(U-Net), :mod:`.demist` (the model, its streams off, its inputs useless, other bundles), :mod:`.bounds` (what no method
exceeds). Each has ``build(context)``, which gives its methods; :mod:`.registry` lists them in the order of the tables.
"""

from .demist import reference
from .method import Context, Method, Outcome
from .registry import choose_methods

__all__ = ["Context", "Method", "Outcome", "choose_methods", "reference"]
