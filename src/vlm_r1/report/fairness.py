"""Units -> the fairness contract as a checklist: every term, and whether it was equal for all."""

import json
from typing import Any

from vlm_r1.rec.contract import Contract
from vlm_r1.report.results_table import EvalResult
from vlm_r1.report.schema import FairnessTerm

RECORDS = "records of "  # + dataset: its records' digest, beside the terms of the contract


def checklist(results: list[EvalResult]) -> list[FairnessTerm]:
    """The contract's terms over all units, then the digest of each dataset's records.

    Where the files tell no terms, as logs of others, every term of our contract is unknown.
    """
    contracts = [result.contract for result in results]
    if not all(contract.get("verified", True) for contract in contracts):
        terms = [_unknown(term) for term in Contract.model_fields]
    else:
        names = dict.fromkeys(term for contract in contracts for term in contract)
        terms = [_term(name, [c.get(name) for c in contracts]) for name in names if name != "seed"]
        terms += [_term("seed", _seeds(results))] if "seed" in names else []
    for dataset in dict.fromkeys(result.dataset for result in results):
        digests = [result.records_digest for result in results if result.dataset == dataset]
        known = any(digest is not None for digest in digests)
        name = RECORDS + dataset
        terms.append(_term(name, digests) if known else _unknown(name))
    return terms


def _term(name: str, values: list[Any]) -> FairnessTerm:
    distinct = list({json.dumps(value, sort_keys=True): value for value in values}.values())
    status = "equal" if len(distinct) == 1 else "unequal"
    return FairnessTerm(term=name, status=status, values=distinct)


def _seeds(results: list[EvalResult]) -> list[Any]:
    """Each method's seeds: one where it is trained once, else all in order."""
    found = []
    for method in dict.fromkeys(result.method for result in results):
        seeds = {result.contract.get("seed"): None for result in results if result.method == method}
        found.append(next(iter(seeds)) if len(seeds) == 1 else list(seeds))
    return found


def _unknown(name: str) -> FairnessTerm:
    return FairnessTerm(term=name, status="unknown", values=[])
