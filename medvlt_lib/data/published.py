"""The published data sets: where each lives, and which reader knows its rows.

MedVLThinker's four sets (arXiv 2508.02669), the six benchmarks from their own homes, PMC-VQA as released, and what
MedVLM-R1 (arXiv 2502.19634) trained and tested on. A set is read through `datasets` from the Hub, or, in the same
columns, from a folder DIR/NAME on this machine (parquet, JSONL or CSV), where data.mirror = DIR. Of a large set only
the rows of a part are fetched (and up to a thousand more, among which they are shuffled); a zip of images is fetched
whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from medvlt_lib.data.readers import Reader, adapt_closed, adapt_pmc, medxpert, mmmu, omni, pmc_released, unified


@dataclass(frozen=True)
class Source:
    """One data set. `revision`: the commit that is read (None: the newest, whose commit the data card then names).

    `columns`: those that the reader needs. `whole`: small enough to read to the end, so that a part of it is an even
    sample; otherwise a part is drawn from a shuffled stream and no more is fetched. `spread_over`: the column over
    whose values a part is spread evenly. `archive`: a zip of images beside the rows, or REPO:ZIP where it lies in
    another data set. `files`: the file of rows, or its address, where the data set has others too. `rows`: the
    published counts; the smallest of them tells which set of a group is read first, since the larger ones make up for
    it, and whether a part is smaller than its set. `licence` goes with every question.
    """

    repo: str
    reader: Reader
    columns: tuple[str, ...]
    splits: tuple[str, ...] = ("test",)
    configs: tuple[str | None, ...] = (None,)
    revision: str | None = None
    licence: str | None = None
    whole: bool = True
    spread_over: str | None = None
    archive: str | None = None
    files: str | None = None
    rows: dict = field(default_factory=dict)


COLUMNS = ("images", "question", "options", "answer_label", "answer", "reasoning", "dataset_name", "dataset_index")
ADAPT = "AdaptLLM/biomed-VQA-benchmark"
CLOSED = ("image", "input", "label", "answer_type")
OMNI = ("image", "question", "options", "answer", "subset")
SOURCES: dict[str, Source] = {
    "UCSC-VLAA/MedVLThinker-m23k-tokenized": Source(
        "UCSC-VLAA/MedVLThinker-m23k-tokenized", unified, COLUMNS, ("train",), rows={"pass counts exist for": 23456}
    ),
    "UCSC-VLAA/MedVLThinker-pmc_vqa": Source(
        "UCSC-VLAA/MedVLThinker-pmc_vqa",
        unified,
        COLUMNS,
        ("train",),
        whole=False,
        rows={"legacy notebook": 176917, "scripts": 176896},
    ),
    "UCSC-VLAA/MedVLThinker-pmc_vqa-gpt_4o_reasoning-tokenized": Source(
        "UCSC-VLAA/MedVLThinker-pmc_vqa-gpt_4o_reasoning-tokenized",
        unified,
        COLUMNS,
        ("train",),
        whole=False,
        rows={"Hub": 67200},
    ),
    "UCSC-VLAA/MedVLThinker-Eval": Source(
        "UCSC-VLAA/MedVLThinker-Eval", unified, COLUMNS, spread_over="dataset_name", rows={"released": 8220}
    ),
    "RadGenome/PMC-VQA": Source(
        "RadGenome/PMC-VQA",
        pmc_released,
        ("Figure_path", "Question", "Answer", "Answer_label", "Choice A", "Choice B", "Choice C", "Choice D"),
        ("train",),
        revision="b56ae594f794867893143b337b4118a835794647",
        whole=False,
        archive="images.zip",
        files="train.csv",
        rows={"paper, before cleaning": 176948, "legacy notebook": 176917, "scripts": 176896},
    ),
    f"{ADAPT}/PMC-VQA": Source(
        ADAPT,
        adapt_pmc,
        ("image", "input", "label", "A", "B", "C", "D"),
        configs=("PMC-VQA",),
        rows={"published": 2000},
    ),
    f"{ADAPT}/PathVQA": Source(
        ADAPT, adapt_closed("pathvqa_closed"), CLOSED, configs=("PathVQA",), rows={"all": 6719, "closed": 3362}
    ),
    f"{ADAPT}/SLAKE": Source(
        ADAPT, adapt_closed("slake_closed"), CLOSED, configs=("SLAKE",), rows={"all": 1061, "closed": 416}
    ),
    f"{ADAPT}/VQA_RAD": Source(
        ADAPT, adapt_closed("vqa_rad_closed"), CLOSED, configs=("VQA_RAD",), rows={"all": 451, "closed": 272}
    ),
    "MMMU/MMMU": Source(
        "MMMU/MMMU",
        mmmu,
        ("id", "question", "options", "answer", "question_type", "image_1"),
        ("validation", "dev"),
        (
            "Basic_Medical_Science",
            "Clinical_Medicine",
            "Diagnostics_and_Laboratory_Medicine",
            "Pharmacy",
            "Public_Health",
        ),
        revision="98e6ac0cb9b7b2cd2c991b85a50762edc4aedc68",
        rows={"validation and dev": 175, "multiple choice": 170},
    ),
    "TsinghuaC3I/MedXpertQA/MM": Source(
        "TsinghuaC3I/MedXpertQA",
        medxpert,
        ("id", "question", "options", "label", "images"),
        configs=("MM",),
        revision="7e7c465a68eb2b866926bfa59c8c9d17a8daba65",
        licence="MIT",
        archive="images.zip",
        rows={"test": 2000, "scored for local models": 1996},
    ),
    "FreedomIntelligence/Medical_Multimodal_Evaluation_Data": Source(
        "FreedomIntelligence/Medical_Multimodal_Evaluation_Data",
        omni(("MRI",)),
        OMNI,
        archive="images.zip",
        rows={"paper": 600, "code": 500},
    ),
    "JZPeterPan/MedVLM-R1": Source(
        "JZPeterPan/MedVLM-R1",
        omni(("MRI", "CT", "X-ray")),
        OMNI,
        revision="2eee4210b25b149dcfa68513eb4682ac63b029d2",
        spread_over="subset",
        archive="FreedomIntelligence/Medical_Multimodal_Evaluation_Data:images.zip",
        files="https://raw.githubusercontent.com/{repo}/{revision}/MRI_CT_XRAY_300each_dataset.json",
        rows={"each of MRI, CT and X-ray": 300},
    ),
}
SIX = (
    f"{ADAPT}/PMC-VQA",
    f"{ADAPT}/PathVQA",
    f"{ADAPT}/SLAKE",
    f"{ADAPT}/VQA_RAD",
    "MMMU/MMMU",
    "TsinghuaC3I/MedXpertQA/MM",
)
GROUPS = {"six-benchmarks": SIX}  # hub:NAME that reads several sets, a part of each
