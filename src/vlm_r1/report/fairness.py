"""The fairness contract over all results: unequal terms are refused or named, all are listed."""

import json
from typing import Any

from vlm_r1.rec.contract import Contract, differences, require_equal
from vlm_r1.report.results_table import EvalResult
from vlm_r1.report.schema import FairnessTerm

RECORDS = "records of "  # + dataset: the digest of its records, listed after the contract's terms


def check_fairness(results: list[EvalResult], allow_unfair: bool) -> list[str]:
    """The terms in which results differ, "field: one value != another"; empty if all are equal.

    Terms are the contract (its seed only among the runs of one seed) and, for the results of one
    dataset, the digest of its records.

    Raises:
        ContractError: terms differ and `allow_unfair` is not given.
    """
    found = []
    for group in _equal_terms(results):
        if not allow_unfair:
            require_equal(group)
        first, *others = group.values()
        found += [line for other in others for line in differences(first, other)]
    return list(dict.fromkeys(found))


def checklist(results: list[EvalResult]) -> list[FairnessTerm]:
    """The contract's terms over all results, then the digest of each dataset's records.

    If the files have no contracts, as logs of other tools, every term is unknown.
    """
    datasets = dict.fromkeys(result.dataset for result in results)
    return [*_contract_terms(results), *(_records_term(results, name) for name in datasets)]


def _contract_terms(results: list[EvalResult]) -> list[FairnessTerm]:
    contracts = [result.contract for result in results]
    if not all(contract.get("verified", True) for contract in contracts):
        return [_unknown(name) for name in Contract.model_fields]
    names = dict.fromkeys(name for contract in contracts for name in contract)
    terms = [_term(name, [c.get(name) for c in contracts]) for name in names if name != "seed"]
    return [*terms, _term("seed", _seeds(results))] if "seed" in names else terms


def _records_term(results: list[EvalResult], dataset: str) -> FairnessTerm:
    digests = [result.records_digest for result in results if result.dataset == dataset]
    name = RECORDS + dataset
    return _unknown(name) if set(digests) == {None} else _term(name, digests)


def _term(name: str, values: list[Any]) -> FairnessTerm:
    distinct = list({json.dumps(value, sort_keys=True): value for value in values}.values())
    status = "equal" if len(distinct) == 1 else "unequal"
    return FairnessTerm(term=name, status=status, values=distinct)


def _seeds(results: list[EvalResult]) -> list[Any]:
    """Each method's seeds: the seed itself if there is one, else the list of all."""
    found: list[Any] = []
    for method in dict.fromkeys(result.method for result in results):
        seeds = {result.contract.get("seed"): None for result in results if result.method == method}
        found.append(next(iter(seeds)) if len(seeds) == 1 else list(seeds))
    return found


def _unknown(name: str) -> FairnessTerm:
    return FairnessTerm(term=name, status="unknown", values=[])


def _equal_terms(results: list[EvalResult]) -> list[dict[str, dict[str, Any]]]:
    """Source -> terms, in groups within which all terms must be equal."""
    by_seed: dict[int | None, dict[str, dict[str, Any]]] = {}
    by_dataset: dict[str, dict[str, dict[str, Any]]] = {}
    for r in results:
        by_seed.setdefault(r.seed, {})[r.source] = r.contract
        by_dataset.setdefault(r.dataset, {})[r.source] = {r.dataset: r.records_digest}
    across_seeds = {}
    for group in by_seed.values():
        source, contract = next(iter(group.items()))
        across_seeds[source] = {term: value for term, value in contract.items() if term != "seed"}
    return [*by_seed.values(), across_seeds, *by_dataset.values()]
