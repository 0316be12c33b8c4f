"""The chain rule with the numbers put in, for any network and example: what ``chainrule explain`` shows.

`subject` says which network and which example, `trace` reads the engine's numbers, `others` finds the same
gradients without its backward, `paths` follows one weight to the loss, `step` lets the optimizer take a step,
`formulas` has the mathematics in words, `explanation` holds all of it and writes it as JSON (`encoding`),
`text` prints it. `one_neuron` is the smallest case, with a screen of its own.
"""

from chainrule.explaining.explanation import Explanation as Explanation
from chainrule.explaining.explanation import explain as explain
from chainrule.explaining.step import with_optimizer as with_optimizer
from chainrule.explaining.subject import Subject as Subject
from chainrule.explaining.subject import Wanted as Wanted
from chainrule.explaining.subject import from_net as from_net
from chainrule.explaining.subject import from_recipe as from_recipe
from chainrule.explaining.subject import from_run as from_run
