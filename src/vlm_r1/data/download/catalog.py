"""Every archive that VLM-R1 uses: address, size, SHA-256, license.

The addresses, sizes and digests have not been tried against the servers; each note says where a
value comes from. None means unknown: `fetch` records the first file it receives and requires the
same bytes from then on.
"""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from vlm_r1.errors import ConfigError

HUB = "https://huggingface.co/datasets/omlab/VLM-R1/resolve/main"
UNC = "https://bvisionweb1.cs.unc.edu/licheng/referit/data"


class Archive(BaseModel):
    """One file on a server.

    Attributes:
        name: its name in this project: `data/raw/<name>.zip`, `data/unpacked/<name>/`.
        base, path: the address is `<base>/<path>`, or `<mirror>/<path>` on a mirror.
        sha256, size_bytes: None if not published.
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
        """File name in data/raw."""
        return self.name + PurePosixPath(self.path).suffix

    @property
    def is_zip(self) -> bool:
        """Whether it can be unpacked; one of the files is plain JSON."""
        return self.file.endswith(".zip")

    def url(self, mirror: str | None = None) -> str:
        """Address on the original server, or on `mirror`."""
        return f"{(mirror or self.base).rstrip('/')}/{self.path}"


UNKNOWN = "none stated (Hugging Face: unknown)"
COCO = "annotations CC BY 4.0; each photo under its Flickr license"
REFER = "Apache-2.0 (lichengunc/refer)"

ARCHIVES = (
    Archive(
        name="train2014",
        base=HUB,
        path="train2014.zip",
        sha256="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        size_bytes=13_510_573_713,
        license=COCO,
        note="COCO train2014, 82,783 photos; also http://images.cocodataset.org/zips/train2014.zip."
        " SHA-256 from a third party's evaluator of VLM-R1",
    ),
    Archive(
        name="rec_jsons_processed",
        base=HUB,
        path="rec_jsons_processed.zip",
        license=UNKNOWN,
        note="VLM-R1's records: RefCOCO/+/g train and val, RefGTA subsample, LISA test",
    ),
    Archive(
        name="refgta",
        base=HUB,
        path="refgta.zip",
        license="GTA V images: non-commercial and research use only",
        note="the images of VLM-R1's RefGTA subsample (502 PNG, as a third party counted)",
    ),
    Archive(
        name="lisa_test",
        base=HUB,
        path="lisa_test.zip",
        sha256="16567839c5660c4f85bca14b1303943405bea95d8c730eb506f31a9b851e785c",
        license=UNKNOWN,
        note="779 photos of LISA's ReasonSeg test. VLM-R1's README names lisa-test.zip, which was"
        " reported dead (VLM-R1 issue 295). SHA-256 from a third party's evaluator",
    ),
    Archive(
        name="mllm_rec_json",
        base=HUB,
        path="sft_related/mllm_rec_json.json",
        license=UNKNOWN,
        note="VLM-R1's rows for SFT with LLaMA-Factory (321,308); no archive, so never unpacked."
        " Address by the folder's name, unverified",
    ),
    Archive(
        name="rec_jsons_internvl",
        base=HUB,
        path="rec_jsons_internvl.zip",
        license=UNKNOWN,
        note="the same records with boxes in 0-1000, for InternVL",
    ),
    Archive(
        name="refer_refcoco",
        base=f"https://web.archive.org/web/20220413011718id_/{UNC}",
        path="refcoco.zip",
        sha256="7f924bb7ed8dc4568058e4ff626281918d56e5206f4c868c5a80f088f38c8bf0",
        size_bytes=53_993_993,
        license=REFER,
        note="original annotations, splits unc and google. Archived copy: the server is gone (refer"
        " issue 14). Size and SHA-256 from third parties that agree",
    ),
    Archive(
        name="refer_refcocop",
        base=f"https://web.archive.org/web/20220413011656id_/{UNC}",
        path="refcoco+.zip",
        sha256="5f1238112d63199e68da54a28f201471909b21ded7ed79a57d51b4c1443c6b45",
        size_bytes=45_613_210,
        license=REFER,
        note="RefCOCO+, split unc; else as refer_refcoco",
    ),
    Archive(
        name="refer_refcocog",
        base=f"https://web.archive.org/web/20220413012904id_/{UNC}",
        path="refcocog.zip",
        sha256="3d1f7e5b2ff2205940bf59de55f861f5f2cc1403fb980669933a7f9af1aa8211",
        size_bytes=56_712_951,
        license=REFER,
        note="RefCOCOg, splits umd and google; else as refer_refcoco",
    ),
)


def archive_named(name: str) -> Archive:
    """The archive called `name`.

    Raises:
        ConfigError: the catalog has none of that name.
    """
    for archive in ARCHIVES:
        if archive.name == name:
            return archive
    raise ConfigError(
        got=f"the source {name!r}",
        need=f"one of {', '.join(archive.name for archive in ARCHIVES)}",
        because="only a file in the catalog has an address and a checksum",
        do="`vlm-r1 sources` lists them; for a file of your own see docs/data.md, Fetching",
    )


def catalog_text() -> str:
    """The catalog as text, one paragraph per archive."""
    return "\n\n".join(_paragraph(archive) for archive in ARCHIVES)


def _paragraph(archive: Archive) -> str:
    size = f"{archive.size_bytes:,} bytes" if archive.size_bytes else "size unknown"
    fields = {
        "address": archive.url(),
        "sha256": archive.sha256 or "unknown: recorded when first fetched",
        "license": archive.license,
        "note": archive.note,
    }
    lines = [f"  {key:<9}{text}" for key, text in fields.items()]
    return "\n".join([f"{archive.name}  ({size})", *lines])
