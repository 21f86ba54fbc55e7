"""Where images come from (`sources`), and how they become augmented batches (`batches`)."""

from roadmap.checks import check_choice
from roadmap.data.known import data_sets

#: What a data set of the Hugging Face hub is called by: this and its name there, or the path of a local one.
HUB = "hfds/"
#: The ways to hold the images.
LOADINGS = ("auto", "memory", "stream")


def check_data(name: object) -> None:
    """Raise `RoadmapError` unless a data set can be called so."""
    if not (isinstance(name, str) and name.startswith(HUB) and name != HUB and "\0" not in name):
        check_choice("data", name, (*data_sets(), f"{HUB}NAME"))
