"""The tables of a source: order, groups, and each way they can be wrong."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.errors import InputError, Problem
from pipeline.sources.archive import open_archive
from pipeline.sources.samples import list_samples, unlisted
from tests.fixtures.archives import TEST, TRAIN, competition, table, write_files, write_zip


def listed(folder: Path, **tables: bytes) -> tuple[pd.DataFrame, list[Problem]]:
    write_files(folder, {f"{name}.csv": data for name, data in tables.items()})
    with open_archive(folder) as archive:
        return list_samples(archive)


def test_training_samples_come_first_both_in_the_order_of_their_tables(tmp_path: Path) -> None:
    write_files(tmp_path, competition(antibodies=True))
    samples, problems = listed(tmp_path)
    assert not problems
    assert samples["id"].tolist() == [*TRAIN, *TEST]
    assert samples["split"].tolist() == ["train"] * 4 + ["test"] * 3
    assert samples["target"].tolist() == ["0", "0 25", "16", "27", "", "", ""]
    assert samples["group"].tolist() == ["HPAa", "HPAa", "HPAb", "HPAb", "HPAt", "HPAt", "HPAt"]


def test_a_source_of_training_samples_alone_has_no_test_samples(tmp_path: Path) -> None:
    samples, problems = listed(tmp_path, train=table("Id,Target", "a,1"))
    assert not problems
    assert samples["split"].tolist() == ["train"]


def test_cells_stay_text(tmp_path: Path) -> None:
    samples, problems = listed(tmp_path, train=table("Id,Target", "007,1", "NA,2", "1e5,3"))
    assert not problems
    assert samples["id"].tolist() == ["007", "NA", "1e5"]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("Id,Target", "a,16 0"),
        ("Id;Target", "a;16 0"),
        ("Id\tTarget", "a\t16 0"),
        ("ID,TARGET", "a,16 0"),
        ("id , target", "a,16 0"),
        ("Id,Target", "a,16|0"),
        ("Id,Target", "a,16;0"),
        ("Id,Target", '"a","0,16"'),
        ("Id,Target", "a,Cytokinetic bridge|nucleoplasm"),
        ("Id,Target", "a,cytokinetic bridge; Nucleoplasm"),
        ("\ufeffId,Target,Note", "a,0 16,seen twice\r"),
        ("sep=;\r\nId;Target", "a;16 0\r"),  # written for Excel
        ("Id;Target;", "a;16 0;\n;;\n;;"),  # and by it
        ("Id, Target", " a , 16 0 "),
        (",Id,Target", "0,a,16 0"),  # pandas with its index
        ("Id,Target", 'a,"[16, 0]"'),  # and with a list in a cell
        ("Id,Target", "a,\"['Cytokinetic bridge', 'Nucleoplasm']\""),
        ("\n\nId;Target", "a;16,0"),
        ('Id;Target;"Notes, if any"', "a;16 0;"),
        ("Id|Target", "a|16 0"),
        ("Id,Target", "a,16\u00a00"),
        ("Id,Target", "'a','16 0'"),
        ("Id,Target", '"""a""",16 0'),
        ("Id,Target", "a,16 0,,"),  # separators without values
        ("Id;Target", "a;Cytokinetic bridge, Nucleoplasm"),
        ("Id,Target", 'a,"Cytokinetic bridge, nucleoplasm"'),
        ("\ufeffId,Target", "a,16 0"),  # after the mark that the encoding takes away, another one
        ("Image,ID,Gene,Target,Reviewed", "x.png,a,ACTB,16 0,yes"),
    ],
)
@pytest.mark.parametrize(("encoding", "end"), [("utf-8", "\n"), ("utf-16", "\r\n"), ("utf-8", "\r")])
def test_what_a_table_means_without_doubt_is_read(
    header: str, row: str, encoding: str, end: str, tmp_path: Path
) -> None:
    text = f"{header}\n{row}\n".replace("\r", "").replace("\n", end)
    samples, problems = listed(tmp_path, train=text.encode(encoding))
    assert not problems
    assert samples[["id", "target"]].values.tolist() == [["a", "0 16"]]


def test_another_separator_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed(tmp_path, train=table("Id;Target", "a;1"))
    assert "train.csv: read with ';' between the columns" in capsys.readouterr().err


def test_labels_of_another_competition_are_refused_with_a_row_and_a_right_one(tmp_path: Path) -> None:
    message = (
        r"the columns ID, Label \(its first row: a,8\|5\|0\), but needs Id and Target: write rows such as 'a1,16 0'"
    )
    with pytest.raises(InputError, match=message):
        listed(tmp_path, train=table("ID,Label", "a,8|5|0"))


def test_the_antibody_is_read_from_an_atlas_id(tmp_path: Path) -> None:
    ids = ["10580_1610_C1_1", "11651_1732_F3_13_cr580610dc203b9", "800_A6_1", "00070df0-bbc3-11e8-b2bc-ac1f6b6435d0"]
    samples, _ = listed(tmp_path, train=table("Id,Target", *(f"{id_},1" for id_ in ids)))
    assert samples["group"].tolist() == ["10580", "11651", "", ""]


@pytest.mark.parametrize(
    ("rows", "where", "what"),
    [
        (["a,1", "a,2"], "a", "more than once in train.csv"),
        (["a,28"], "a ('28')", "not label ids 0..27"),
        (["a,-1"], "a ('-1')", "not label ids 0..27"),
        (["a,"], "a ('')", "not label ids 0..27"),
        (["a"], "a ('')", "not label ids 0..27"),
        (["a,1 1"], "a ('1 1')", "not label ids 0..27"),
        (["../a,1"], "'../a'", "characters other than"),
        ([",1"], "''", "characters other than"),
        (["t,1"], "t", "in both train.csv and sample_submission.csv"),
        (["a,16.0"], "a ('16.0')", "not label ids 0..27"),
        (["a,\u0661"], "a ('\u0661')", "not label ids 0..27"),
        (["a,Cytosol 1"], "a ('Cytosol 1')", "not label ids 0..27"),
        (["b,1", " b ,2"], "b", "more than once in train.csv"),
        (["a1_green.png,1", "'c,1"], '"\'c"', "characters other than"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_kept(rows: list[str], where: str, what: str, tmp_path: Path) -> None:
    tables = {"train": table("Id,Target", "ok,1", *rows), "sample_submission": table("Id,Predicted", "t,0", "u,0")}
    samples, problems = listed(tmp_path, **tables)
    assert [problem.where for problem in problems] == [where]
    assert what in problems[0].what
    assert {"ok", "u"} <= set(samples["id"])
    assert samples["id"].is_unique


def test_ids_in_capitals_and_with_endings_are_those_of_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path, competition())
    samples, problems = listed(
        tmp_path,
        train=table("Id,Target", "A1,0", "a2.png,25 0", "b1_green.png,16", "b2,27"),
        sample_submission=table("Id,Predicted", "T2,0", "t1.jpg,0", "t3,0"),
        groups=table("id,antibody", "a1,HPA1", "A2,HPA1", "B1.png,HPA2", "b2.TIF,HPA3"),
    )
    assert not problems
    assert samples["id"].tolist() == ["A1", "a2.png", "b1_green.png", "b2", "T2", "t1.jpg", "t3"], "as written"
    assert samples["files"].tolist() == [*TRAIN, *TEST]
    assert samples["group"].tolist() == ["HPA1", "HPA1", "HPA2", "HPA3", "", "", ""]
    said = (
        "5 ids are written in another way than the names of their files, such as A1 (a1): they are taken for the same"
    )
    assert said in capsys.readouterr().err
    with open_archive(tmp_path) as archive:
        assert unlisted(archive, samples) == []


def test_two_spellings_of_one_id_are_one_sample(tmp_path: Path) -> None:
    write_files(tmp_path, competition())
    _, problems = listed(
        tmp_path,
        train=table("Id,Target", "a1,0", "A1,0", "a1_green.png,0", "b1,1", "b2,1"),
        sample_submission=table("Id,Predicted", "B1.png,0", "t1,0"),
        groups=table("id,antibody", "a1,HPA1", "A1,HPA1", "b1,HPA2", "b2,HPA3"),
    )
    assert {(problem.where, problem.what.split(":")[0]) for problem in problems} == {
        ("A1", "ids that occur more than once in train.csv"),
        ("a1_green.png", "ids that occur more than once in train.csv"),
        ("B1.png", "ids in both train.csv and sample_submission.csv"),
        ("A1", "ids that occur more than once in groups.csv"),
    }


def test_ids_that_differ_in_capitals_alone_are_two_where_both_have_files(tmp_path: Path) -> None:
    write_files(tmp_path, {"a_green.png": b"", "A_green.png": b""})
    samples, problems = listed(tmp_path, train=table("Id,Target", "a,0", "A,1"))
    assert not problems
    assert samples["files"].tolist() == ["a", "A"]


def test_test_ids_are_checked_too(tmp_path: Path) -> None:
    _, problems = listed(
        tmp_path, train=table("Id,Target", "a,1"), sample_submission=table("Id,Predicted", "t,0", "t,0", "x y,0")
    )
    assert {problem.where for problem in problems} == {"t", "'x y'"}


def test_groups_must_cover_the_training_ids(tmp_path: Path) -> None:
    _, problems = listed(
        tmp_path,
        train=table("Id,Target", "a,1", "b,1", "c,1"),
        sample_submission=table("Id,Predicted", "t,0"),
        groups=table("id,antibody", "a,HPA1", "b,", "x,HPA2", "x,HPA3"),
    )
    assert {(problem.where, problem.what.split(":")[0]) for problem in problems} == {
        ("b", "training ids without an antibody in groups.csv"),
        ("c", "training ids without an antibody in groups.csv"),
        ("x", "ids that occur more than once in groups.csv"),
    }


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "is not a table .*: save it as CSV in UTF-8"),
        (b"\n\n", "is not a table .*: save it as CSV in UTF-8"),
        (b"\xff\xfeI\x00", "has the columns I, but needs Id and Target"),
        ("Id,Target,Note\na,1,µm\n".encode("latin-1"), "is not a table .*: save it as CSV in UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00\xb5\xff\n", "is not a table .*: save it as CSV in UTF-8"),  # a spreadsheet
        (b"<!DOCTYPE html>\n<html>\n<title>Log in, please</title>\n", "is not a table .*: save it as CSV in UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "has the columns version https.*, but needs"),
        (b"# labels of 2024, by us\nId,Target\na,1\n", "has the columns # labels of 2024, .*, but needs"),
        (b"Id,Cytosol,Nucleoli\na,1,0\n", r"\(its first row: a,1,0\), but needs Id and Target: write rows such as"),
        (b"Id,Target,Target\na,1,2\n", "has more than one column Target: keep one"),
        (b"Id,Target\n,\n,\n", "has no rows"),
        (b'Id,Target\n"a,1\n', "is not a table .*: save it as CSV in UTF-8"),
        (b"Id,Target\n", "has no rows"),
        (b"Id,Labels\na,1\n", "has the columns Id, Labels .*, but needs Id and Target"),
        (
            b"Id,Target\na,1,2\n",
            r"has more values than its header in line 2 \(a,1,2\): write rows such as 'a1,16 0' below 'Id,Target'; "
            r"several labels are separated by blanks or \|, or are in quotes",
        ),
        (b"Id,Target\nb,1\n\na,16,0\n", r"in line 4 \(a,16,0\)"),
        (b"Id,Target\nb,1\na,Cytosol, Nucleoli\n", r"in line 3 \(a,Cytosol, Nucleoli\)"),
    ],
)
def test_what_is_no_table_is_refused(data: bytes, match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"train.csv.*{match}"):
        listed(tmp_path, train=data)


@pytest.mark.parametrize("name", ["Train.csv", "TRAIN.CSV", "old/train.Csv"])
def test_a_table_is_found_in_other_capitals(name: str, tmp_path: Path) -> None:
    write_files(tmp_path, {name: table("Id,Target", "a,1"), "Groups.csv": table("id,antibody", "a,HPA1")})
    samples, problems = listed(tmp_path)
    assert not problems
    assert samples[["id", "group"]].values.tolist() == [["a", "HPA1"]]
    with open_archive(tmp_path) as archive:
        assert unlisted(archive, samples) == []


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["train.csv.txt"], r"rename 'train\.csv\.txt' if that is it"),
        (["train (1).csv"], r"rename 'train \(1\)\.csv' if that is it"),
        (["Train.csv", "TRAIN.csv"], r"rename 'TRAIN\.csv', 'Train\.csv' if that is it"),
        (["train.csv.gz"], r"unpack train\.csv\.gz: archives other than zips are not read"),
        (["hpa/train_full_size.7z", "test.tar"], r"unpack hpa/train_full_size\.7z, test\.tar: archives"),
        (["competition.zip.001", "competition.zip.002"], r"unpack competition\.zip\.001: archives"),
        (["competition.zip.crdownload"], r"unfinished downloads: competition\.zip\.crdownload"),
    ],
)
def test_what_may_be_the_missing_table_is_named(names: list[str], advice: str, tmp_path: Path) -> None:
    write_files(tmp_path, dict.fromkeys(names, b"Id,Target\na,1\n"))
    with pytest.raises(InputError, match=rf"there is no train\.csv among {len(names)} files \({advice}[^)]*\): place"):
        listed(tmp_path)


def test_an_archive_without_train_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no train.csv among 1 files"):
        listed(tmp_path, sample_submission=table("Id,Predicted", "t,0"))


def test_two_archives_in_one_folder_are_refused_by_name(tmp_path: Path) -> None:
    write_files(tmp_path, {"a/train.csv": b"", "b/train.csv": b""})
    with pytest.raises(InputError, match=r"a/train.csv and b/train.csv both exist: keep only one"):
        listed(tmp_path)


def test_a_zip_beside_what_was_unpacked_from_it_is_refused_by_name(tmp_path: Path) -> None:
    write_zip(tmp_path / "competition.zip", competition())
    write_files(tmp_path, competition())
    with pytest.raises(InputError, match=r"competition\.zip/train\.csv and train\.csv both exist: keep only one"):
        listed(tmp_path)


def test_files_that_no_table_lists_are_known(tmp_path: Path) -> None:
    write_files(tmp_path, competition() | {"train/.DS_Store": b"", "train/z_red.png": b"", "README.md": b""})
    with open_archive(tmp_path) as archive:
        assert unlisted(archive, list_samples(archive)[0]) == ["train/.DS_Store", "train/z_red.png"]
