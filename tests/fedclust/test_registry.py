"""Methods and algorithms are found by their files."""

import pytest

import fedclust.algorithms
import graphclust.methods
from fedclust.algorithms import FederatedAlgorithm
from graphclust.graph import InputError
from graphclust.methods import GraphClusterer
from graphclust.registry import class_in, names_in


@pytest.mark.parametrize("package, base", [
    (graphclust.methods, GraphClusterer), (fedclust.algorithms, FederatedAlgorithm),
])
def test_every_file_has_its_class(package, base):
    names = names_in(package)
    assert names == sorted(names) and "base" not in names and not [n for n in names if n.startswith("_")]
    found = [class_in(package, name, base, "thing") for name in names]
    assert len(set(found)) == len(names) and all(issubclass(c, base) for c in found)
    assert [c.__module__.rpartition(".")[2] for c in found] == names


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown algorithm 'fedrcc'; did you mean 'fedrc'\? the algorithms are: cfl"):
        class_in(fedclust.algorithms, "fedrcc", FederatedAlgorithm, "algorithm")
    with pytest.raises(InputError, match=r"unknown method 'zzz'; the methods are: ae_kmeans"):
        class_in(graphclust.methods, "zzz", GraphClusterer, "method")
