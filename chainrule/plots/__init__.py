"""The pictures of a run, one a file, each as the bytes of a PNG.

Matplotlib is imported here and nowhere else; nothing needs a screen. All are six inches wide, with text of
nine points and more, to be read on a phone; markers, dashes and hatching tell apart what colours do.
"""

from chainrule.plots.classes import classes as classes
from chainrule.plots.confusion import confusion as confusion
from chainrule.plots.curves import best_epoch as best_epoch
from chainrule.plots.curves import curves as curves
from chainrule.plots.digits import mistakes as mistakes
from chainrule.plots.digits import samples as samples
from chainrule.plots.features import features as features
from chainrule.plots.history import history as history
from chainrule.plots.reliability import reliability as reliability
from chainrule.plots.weights import MOST_UNITS as MOST_UNITS
from chainrule.plots.weights import weights as weights
