"""The benchmarks lie beside the tests in the repository, but are not published."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("benchmarks") else ["test_*.py"]
