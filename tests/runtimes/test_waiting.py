"""What waits to be folded: the records in their order, however they came and in whatever pieces they are taken."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Batch
from penstock.core.record import LogRecord
from penstock.runtimes.waiting import Waiting

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("extend"), st.integers(0, 6), st.booleans()),
        st.tuples(st.just("take"), st.integers(1, 5), st.just(value=False)),
        st.tuples(st.just("clear"), st.just(0), st.just(value=False)),
    ),
    max_size=30,
)


def pieces(first: int, count: int, *, batched: bool) -> Batch | list[LogRecord]:
    values = [b"%d" % (first + place) for place in range(count)]
    batch = Batch(first, 10 * first, values, 0, count)
    return batch if batched else [*batch]


@given(STEPS)
def test_law_it_is_a_queue(steps):
    waiting, plain, offset = Waiting(), [], 0
    for what, number, batched in steps:
        if what == "extend":
            some = pieces(offset, number, batched=batched)
            offset += number
            waiting.extend(some)
            plain += some
        elif what == "clear":
            waiting.clear()
            plain.clear()
        elif plain:
            assert [*waiting.take(number)] == plain[:number]
            del plain[:number]
        assert (waiting.size, len(waiting), [*waiting]) == (len(plain), len(plain), plain)
        if plain:
            assert (waiting.oldest(), waiting.newest()) == (plain[0], plain[-1])


def test_a_long_batch_is_taken_without_an_object_for_each_record():
    waiting = Waiting()
    waiting.extend(pieces(0, 10, batched=True))
    waiting.extend(pieces(10, 2, batched=True))
    first, second, rest = waiting.take(4), waiting.take(6), waiting.take(6)
    assert (type(first), type(second), type(rest)) == (Batch, Batch, Batch)
    assert [record.offset for record in (*first, *second, *rest)] == list(range(12))
