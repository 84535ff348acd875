"""Every archive that VLM-R1 uses: where it is, what it must be, whose it is. Facts only.

Addresses, sizes and SHA-256 were not checked against the servers from here; each note says where
a value comes from. Null is unknown: `fetch` records what it received, and compares from then on.
"""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from vlm_r1.errors import ConfigError

HUB = "https://huggingface.co/datasets/omlab/VLM-R1/resolve/main"
UNC = "https://bvisionweb1.cs.unc.edu/licheng/referit/data"


class Source(BaseModel):
    """One file on a server.

    Attributes:
        name: what it is called here: `data/raw/<name>.zip`, `data/unpacked/<name>/`.
        base, path: its address is `<base>/<path>`; on a mirror, `<mirror>/<path>`.
        sha256, size_bytes: of the file; null where nobody has published them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    base: str
    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size_bytes: Annotated[int, Field(ge=1)] | None = None
    license: str
    note: str

    @property
    def file(self) -> str:
        """Its name in data/raw."""
        return self.name + PurePosixPath(self.path).suffix

    @property
    def is_archive(self) -> bool:
        """Whether there is something to unpack."""
        return self.file.endswith(".zip")

    def url(self, mirror: str | None = None) -> str:
        """Its address, on a mirror if one is given."""
        return f"{(mirror or self.base).rstrip('/')}/{self.path}"


UNKNOWN = "none stated (Hugging Face: unknown)"
COCO = "annotations CC BY 4.0; each photo under its Flickr license"
REFER = "Apache-2.0 (lichengunc/refer)"

SOURCES = (
    Source(
        name="train2014",
        base=HUB,
        path="train2014.zip",
        sha256="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        size_bytes=13_510_573_713,
        license=COCO,
        note="COCO train2014, 82,783 photos; also http://images.cocodataset.org/zips/train2014.zip."
        " SHA-256 from a third party's evaluator of VLM-R1",
    ),
    Source(
        name="rec_jsons_processed",
        base=HUB,
        path="rec_jsons_processed.zip",
        license=UNKNOWN,
        note="VLM-R1's records: RefCOCO/+/g train and val, RefGTA subsample, LISA test",
    ),
    Source(
        name="refgta",
        base=HUB,
        path="refgta.zip",
        license="GTA V images: non-commercial and research use only",
        note="the images of VLM-R1's RefGTA subsample (502 PNG, as a third party counted)",
    ),
    Source(
        name="lisa_test",
        base=HUB,
        path="lisa_test.zip",
        sha256="16567839c5660c4f85bca14b1303943405bea95d8c730eb506f31a9b851e785c",
        license=UNKNOWN,
        note="779 photos of LISA's ReasonSeg test. VLM-R1's README names lisa-test.zip, which was"
        " reported dead (issue 295). SHA-256 from a third party's evaluator",
    ),
    Source(
        name="mllm_rec_json",
        base=HUB,
        path="sft_related/mllm_rec_json.json",
        license=UNKNOWN,
        note="VLM-R1's rows for SFT with LLaMA-Factory (321,308); no archive, so never unpacked."
        " Address by the folder's name, unverified",
    ),
    Source(
        name="rec_jsons_internvl",
        base=HUB,
        path="rec_jsons_internvl.zip",
        license=UNKNOWN,
        note="the same records with boxes in 0-1000, for InternVL",
    ),
    Source(
        name="refer_refcoco",
        base=f"https://web.archive.org/web/20220413011718id_/{UNC}",
        path="refcoco.zip",
        sha256="7f924bb7ed8dc4568058e4ff626281918d56e5206f4c868c5a80f088f38c8bf0",
        size_bytes=53_993_993,
        license=REFER,
        note="original annotations, splits unc and google. Archived copy: the server is gone (refer"
        " issue 14). Size and SHA-256 from third parties that agree",
    ),
    Source(
        name="refer_refcocop",
        base=f"https://web.archive.org/web/20220413011656id_/{UNC}",
        path="refcoco+.zip",
        sha256="5f1238112d63199e68da54a28f201471909b21ded7ed79a57d51b4c1443c6b45",
        size_bytes=45_613_210,
        license=REFER,
        note="RefCOCO+, split unc; else as refer_refcoco",
    ),
    Source(
        name="refer_refcocog",
        base=f"https://web.archive.org/web/20220413012904id_/{UNC}",
        path="refcocog.zip",
        sha256="3d1f7e5b2ff2205940bf59de55f861f5f2cc1403fb980669933a7f9af1aa8211",
        size_bytes=56_712_951,
        license=REFER,
        note="RefCOCOg, splits umd and google; else as refer_refcoco",
    ),
)


def source_named(name: str) -> Source:
    """The source of that name.

    Raises:
        ConfigError: there is none.
    """
    for source in SOURCES:
        if source.name == name:
            return source
    raise ConfigError(
        got=f"the source {name!r}",
        need=f"one of {', '.join(source.name for source in SOURCES)}",
        because="only a declared source has an address and a checksum",
        do="`vlm-r1 sources` lists them; for a file of your own see docs/data.md, Fetching",
    )


def sources_text() -> str:
    """Every source in a few lines for a person."""
    return "\n\n".join(_paragraph(source) for source in SOURCES)


def _paragraph(source: Source) -> str:
    size = f"{source.size_bytes:,} bytes" if source.size_bytes else "size unknown"
    lines = {
        "": f"{source.name}  ({size})",
        "address": source.url(),
        "sha256": source.sha256 or "unknown: recorded when first fetched",
        "license": source.license,
        "note": source.note,
    }
    return "\n".join(f"  {key:<9}{text}" if key else text for key, text in lines.items())
