"""Numbers of expressions in the public datasets, as their authors state them.

A dataset names its entry in `datasets.<name>.published`; validation then compares each split.
"""

# RefCOCO/+/g: github.com/lichengunc/refer (142,210, 141,564 and 95,010 expressions in all); train
# and val as in VLM-R1's rec_jsons_processed. RefGTA: github.com/mikittt/easy-to-understand-REG
# (213,175). LISA: dvlab-research/LISA's ReasonSeg test as in VLM-R1's lisa_test.json.
PUBLISHED: dict[str, dict[str, int]] = {
    "refcoco_unc": {"train": 120_624, "val": 10_834, "testA": 5_657, "testB": 5_095},
    "refcocoplus_unc": {"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889},
    "refcocog_umd": {"train": 80_512, "val": 4_896, "test": 9_602},
    "refgta_utokyo": {"train": 177_763, "val": 17_766, "test": 17_646},
    "lisa": {"test": 1_658},
}
