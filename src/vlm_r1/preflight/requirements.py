"""Whether the packages installed here meet what a package asks for, by their own metadata."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def unmet_requirements(asked: str) -> list[str]:
    """What `asked` (as "trl[vllm]") lacks in this environment, with what asks for it.

    Everything it depends on is looked at, as a resolver would; packages that are missing are named
    but not looked into, since only installed ones tell what they need.

    Example: ["torch==2.13.0 for vllm (2.14.1 is installed)"]
    """
    unmet, seen = [], set()
    waiting = [(Requirement(asked), "this project")]
    while waiting:
        requirement, asker = waiting.pop()
        seen_as = (
            canonicalize_name(requirement.name),
            str(requirement.specifier),
            *requirement.extras,
        )
        if seen_as in seen:
            continue
        seen.add(seen_as)
        wanted = f"{requirement.name}{requirement.specifier} for {asker}"
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            unmet.append(f"{wanted} (not installed)")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            unmet.append(f"{wanted} ({found} is installed)")
        waiting += [(needed, requirement.name) for needed in _needed_by(requirement)]
    return sorted(unmet)


def _needed_by(requirement: Requirement) -> list[Requirement]:
    """What an installed package needs on this machine, with the extras that are asked for."""
    extras = requirement.extras or {""}
    return [
        needed
        for needed in map(Requirement, metadata.requires(requirement.name) or [])
        if needed.marker is None
        or any(needed.marker.evaluate({"extra": extra}) for extra in extras)
    ]
