"""A suite that never fails proves nothing: each planted bug is found, by the test that is for it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from tools.services.redis import SERVICE as REDIS

pytestmark = pytest.mark.timeout(300)
"""All of them are run for the first test that asks, on a machine that may be busy."""

PLANTED = sorted(Path(__file__).parent.glob("planted*.py"))
NAMED = {
    name: path
    for path in PLANTED
    for name in re.findall(r"^(?:class )?Planted(\w+)", path.read_text(), re.MULTILINE)
}
"""Each planted bug, and the file it is in."""

FOUND_BY = {
    "RefusesOlder": "test_a_write_is_judged_by_what_is_stored",
    "TakesAnyBaseForAnAbsentLeaf": "test_a_write_is_judged_by_what_is_stored",
    "RefusesRepetition": "test_writing_again_is_safe",
    "ComparesOffsetsOnly": "test_a_write_is_judged_by_what_is_stored",
    "AppliesDespiteRefusal": "test_each_write_of_a_call_is_judged_alone_and_one_refusal_keeps_the_offset",
    "AppliedGoesBack": "test_the_applied_offset_moves_without_leaves_and_never_back",
    "RefusesAllForOne": "test_each_write_of_a_call_is_judged_alone_and_one_refusal_keeps_the_offset",
    "SharesEpochs": "test_epochs_share_nothing",
    "ScansFromTheCursor": "test_a_scan_goes_on_past_leaves_that_move_meanwhile",
    "ReadsInItsOwnOrder": "test_leaves_are_read_in_the_order_asked",
    "NotesTheOffsetNowAndThen": "test_killed_in_the_middle_leaves_and_applied_offset_agree",
    "WritesFromAnyBase": "test_a_write_is_judged_by_what_is_stored",
    "ComparesAsText": "test_a_write_is_judged_by_what_is_stored",
    "ForgetsTheIds": "test_pages_visit_each_leaf_once_in_order",
    "NotesAfterARefusal": "test_each_write_of_a_call_is_judged_alone_and_one_refusal_keeps_the_offset",
    "CountsFromOne": "test_offsets_start_at_0_and_have_no_gaps",
    "LeavesGaps": "test_letters_alone_move_no_offset",
    "FollowsTheClockBack": "test_stamps_never_go_back_when_the_clock_does",
    "MixesPartitions": "test_partitions_have_offsets_of_their_own",
    "ReplacesLetters": "test_a_letter_that_is_kept_already_changes_nothing",
    "ForgetsReplays": "test_replayed_letters_are_listed_only_when_asked",
    "SkipsOverALimit": "test_any_batches_read_in_any_pieces_are_one_sequence",
    "Bytes": "test_records_are_kept_as_they_are",
    "AcksBeforeTheCommit": "test_killed_in_the_middle_nothing_acknowledged_is_lost_and_nothing_is_torn",
    "LettersLater": "test_killed_in_the_middle_nothing_acknowledged_is_lost_and_nothing_is_torn",
    "LastWriteWins": "test_of_two_entries_the_greatest_wins_in_either_order",
    "GrantWinsTies": "test_of_two_entries_the_greatest_wins_in_either_order",
    "SignedIds": "test_of_two_entries_the_greatest_wins_in_either_order",
    "ReplacesTheLeaf": "test_every_entry_of_the_leaves_asked_and_of_no_other",
    "LastDecisionWins": "test_the_first_record_stands",
    "LooksThenPuts": "test_of_threads_that_race_one_wins_and_all_get_its_record",
    "EmptiesTheOutbox": "test_what_is_done_leaves_the_outbox_and_the_decision_stands",
    "ReusesSequences": "test_a_sequence_is_never_used_twice",
    "KeyWithoutBounds": "test_every_element_of_the_key_counts",
    "CountsTokensTwice": "test_the_same_token_counts_once",
    "OneOverTheLimit": "test_reservations_stop_at_the_limit",
    "NeverLapses": "test_a_reservation_lapses_at_its_end",
    "CountsThenReserves": "test_threads_at_the_limit_get_exactly_the_limit",
    "StartsAgain": "test_a_send_is_started_once",
    "ForgetsTheMessage": "test_a_send_is_started_once",
    "MemoryForADurableStore": "test_everything_is_there_after_opening_again",
    "OverwritesKeys": "test_the_first_secret_stands",
    "ReturnsTheLosersKey": "test_the_first_secret_stands",
    "FindsInTheNewestSegment": "test_a_leafs_offsets_ascend_over_all_segments",
    "ReplacesIndexes": "test_a_segment_that_is_there_stays_as_it_is",
    "CountsRecordsAsCovered": "test_it_may_begin_after_the_logs_start",
    "WritesOver": "test_an_object_never_changes",
    "IgnoresOthers": "test_an_object_never_changes",
    "ListsAPage": "test_more_objects_than_a_page_are_listed",
    "RangeToTheEnd": "test_a_range_is_cut_at_the_end",
    "RegistersAgain": "test_registering_again_changes_nothing",
    "TakesAnything": "test_what_does_not_fit_is_refused_and_nothing_registered",
    "OneCompatibility": "test_compatibility_is_of_a_subject",
    "CommitsWhatItPolls": "test_what_was_committed_is_not_read_again_and_what_was_not_is",
    "ReadsTheNext": "test_records_are_read_again_at_their_places",
    "DropsWhatItHolds": "test_who_holds_misses_nothing",
    "TakesAnyMetric": "test_what_is_not_declared_is_a_mistake",
}


@pytest.fixture(scope="module")
def failed() -> dict[str, set[str]]:
    """Run each planted bug once, against the test that is for it; return what failed of each."""
    asked = [f"{NAMED[planted]}::Planted{planted}::{test}" for planted, test in FOUND_BY.items()]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *asked, "-q", "-rf", "--tb=no", "-o",
         "python_classes=Planted*", "-p", "no:cacheprovider"],
        capture_output=True, text=True, check=False, cwd=PLANTED[0].parent,
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    found: dict[str, set[str]] = {}
    for planted, test in re.findall(r"^FAILED \S+::Planted(\w+)::(\w+)", run.stdout, re.MULTILINE):
        found.setdefault(planted, set()).add(test)
    return found


@pytest.mark.parametrize("planted", FOUND_BY)
def test_a_planted_bug_is_found(failed: dict[str, set[str]], planted: str) -> None:
    if NAMED[planted].stem == "planted_redis" and (lacks := REDIS.missing()):
        missing(lacks)
    assert FOUND_BY[planted] in failed.get(planted, set())


def test_every_planted_bug_is_expected_to_be_found() -> None:
    assert sorted(FOUND_BY) == sorted(NAMED)
