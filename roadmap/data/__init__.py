"""Where images come from (`sources`), and how they become augmented batches (`batches`)."""

#: Data sets by name, and the ways to hold them: here, so that naming them needs nothing heavy.
DATA_SETS = ("embedded", "folder", "cifar10", "cifar100", "imagenet")
LOADINGS = ("auto", "memory", "stream")
