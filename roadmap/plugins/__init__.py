"""The plug-in layers that come with this package, found through the same entry points as anybody's."""
