"""Write the submission: a row per test sample, in the order of sample_submission.csv.

Reads blend/test.npz and the first source's index; writes submission.csv. Without a test set it has the header alone.
"""

import pandas as pd

from pipeline.core import paths
from pipeline.core.entry import run_main
from pipeline.core.errors import InputError
from pipeline.core.labels import format_target
from pipeline.core.params import load
from pipeline.core.paths import replacing
from pipeline.core.progress import say
from pipeline.evaluation import result_files
from pipeline.evaluation.result_files import Blend
from pipeline.sources.packed_array import read_index


def submission(decided: Blend, ids: "pd.Series[str]") -> pd.DataFrame:
    """The decisions on the samples ``ids``, in their order: the competition scores by position, not by id.

    Raises:
        InputError: the decisions are for other samples.
    """
    order = pd.Index(decided.ids).get_indexer(pd.Index(ids))
    if len(order) != len(decided.ids) or (order < 0).any():
        raise InputError(
            f"{result_files.TEST}: its {len(decided.ids)} samples are not the {len(ids)} test samples of the index: "
            "run tta and ensemble again"
        )
    predicted = [format_target(row.nonzero()[0].tolist()) for row in decided.decisions[order]]
    return pd.DataFrame({"Id": ids.to_numpy(), "Predicted": predicted})


def main() -> None:
    """Run the stage."""
    source = load().data.sources[0]
    index = read_index(source)
    ids = index.loc[index["split"] == "test", "id"]
    if ids.empty:
        say(f"{paths.source(source)} has no test set (sample_submission.csv), so {paths.SUBMISSION} has no rows")
    table = submission(result_files.load_blend(result_files.TEST), ids)
    with replacing(paths.SUBMISSION) as temporary:
        table.to_csv(temporary, index=False)


if __name__ == "__main__":
    run_main(main)
