"""The Python API: one function for each step of the workflow, as ``hwnas.profile``, ``hwnas.search`` and so on.

The command line calls these functions. They print nothing unless ``progress`` is given, and raise HwnasError for
anything that the user can fix. Everything slow, torch above all, is imported inside the function that needs it.

Arguments that several functions share:

``table``, ``tables``
    A LatencyTable or the path of one. Several devices are given as a list of paths, whose names without ``.json`` name
    the devices, or as a mapping from names to tables.
``space``
    The name of a built-in space (such as ``nasbench201``), a YAML file, ``package.module:NAME``,
    ``python:package.module:NAME`` (a backbone), or a SearchSpace.
``setting``, ``channels``, ``layers``, ``input_shape``, ``classes``
    The sizes of the network: a named setting of the space, and changes to it. ``input_shape`` is (channels, height,
    width). None leaves a size as it is.
``run``
    The folder of a search, or the folder of one of its targets.
``progress``
    A ``hwnas.progress.Progress`` that shows bars and lines; by default nothing is shown.
"""

from hwnas.api.devices import forecast_profile, profile
from hwnas.api.inputs import get_space, read_table, read_tables, size_changes, sized_space
from hwnas.api.networks import convert, evaluate, export, figures_folder, quantize, report, train, verify
from hwnas.api.pruning import prune
from hwnas.api.searching import derive, derive_accuracy, derive_pareto, preview, search

__all__ = [
    "convert",
    "derive",
    "derive_accuracy",
    "derive_pareto",
    "evaluate",
    "export",
    "figures_folder",
    "forecast_profile",
    "get_space",
    "preview",
    "profile",
    "prune",
    "quantize",
    "read_table",
    "read_tables",
    "report",
    "search",
    "size_changes",
    "sized_space",
    "train",
    "verify",
]
