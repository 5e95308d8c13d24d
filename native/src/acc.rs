//! Accumulators: what every aggregate keeps of one tile, added to as `core/feature/aggregates` says.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::msgpack::{self, Known, Reader, Unknown};
use crate::raw::{Raw, rank_of_int};

pub const FOREVER: i64 = -(1 << 62);
/// Sums of this magnitude are Python's: no event that begins below it can make one that 127 bits do not hold.
const GREATEST: u128 = 1 << 126;

const ENTRY_BYTES: i64 = 20;
const CURRENCIES_MAX: usize = 16;
const BUCKET_BYTES: i64 = 12;
const RANK_BITS: u32 = 6;

/// Which aggregate, with its parameters.
#[derive(Debug, Clone)]
pub enum Kind {
    Count,
    Sum,
    Min,
    Max,
    Moments,
    Histogram,
    First,
    Last,
    LastK { k: usize, distinct: bool, keyed: bool },
    Latest,
    Instants { k: usize },
    TopK { cap: usize },
    Distinct { cap: usize, precision: u32 },
    Decay { half_life_ms: i64, counts: bool },
    Sessions { gap_ms: i64 },
}

#[derive(Debug, Clone)]
pub struct Spec {
    pub kind: Kind,
    pub money: bool,
    pub charge: i64,
}

/// A field's value, as a fold gets it.
#[derive(Clone)]
pub enum Val<'a> {
    None,
    Int(i128),
    Bool(bool),
    Str(&'a str),
    Money(i128, &'a str),
    Parts(Raw),
}

impl Val<'_> {
    pub fn raw(&self) -> Raw {
        match self {
            Val::None => Raw::nil(),
            Val::Int(number) => Raw::of_int(*number).expect("fields are checked to fit"),
            Val::Bool(flag) => Raw::of_bool(*flag),
            Val::Str(text) => Raw::of_str(text),
            Val::Money(amount, currency) => {
                let mut out = vec![0x92];
                out.extend_from_slice(Raw::of_int(*amount).expect("fields are checked to fit").bytes());
                msgpack::put_str(&mut out, currency);
                Raw::of(&out)
            }
            Val::Parts(raw) => raw.clone(),
        }
    }
}

#[derive(Clone)]
pub struct Entry {
    pub at: i64,
    pub event: u64,
    pub value: Raw,
}

impl Entry {
    fn place(&self) -> (i64, u64) {
        (self.at, self.event)
    }
}

/// A capped map, keys ascending; `bound` is the greatest rank kept if a key was dropped.
pub struct Cap<V> {
    pub pairs: Vec<(Raw, V)>,
    pub bound: Option<u64>,
}

impl<V> Cap<V> {
    pub fn new() -> Cap<V> {
        Cap { pairs: Vec::new(), bound: None }
    }

    #[inline]
    pub fn find(&self, key: &Raw) -> Result<usize, usize> {
        self.pairs.binary_search_by(|(held, _)| held.cmp(key))
    }

    fn counted(&self) -> usize {
        self.pairs.len() + usize::from(self.bound.is_some())
    }

    fn greatest(&self) -> u64 {
        self.pairs.iter().map(|(key, _)| key.rank()).max().unwrap_or(0)
    }

    /// Whether a key that is not there may enter; room is made if it may.
    fn admits(&mut self, key: &Raw, cap: usize) -> bool {
        if self.counted() < cap {
            return true;
        }
        let bound = match self.bound {
            Some(bound) => bound,
            None => self.greatest(),
        };
        self.bound = Some(bound);
        if key.rank() > bound {
            return false;
        }
        if let Some(place) = self.pairs.iter().position(|(held, _)| held.rank() == bound) {
            self.pairs.remove(place);
        }
        self.bound = Some(self.greatest().max(key.rank()));
        true
    }

    /// The value of a key, put there by `first` if it may enter.
    pub fn entry(&mut self, key: &Raw, cap: usize, first: impl FnOnce() -> V) -> Option<&mut V> {
        let place = match self.find(key) {
            Ok(place) => place,
            Err(_) => {
                if !self.admits(key, cap) {
                    return None;
                }
                let place = self.find(key).unwrap_or_else(|place| place);
                if self.pairs.is_empty() {
                    self.pairs.reserve_exact(1);
                }
                self.pairs.insert(place, (key.clone(), first()));
                place
            }
        };
        self.pairs.get_mut(place).map(|(_, value)| value)
    }

    pub fn encode(&self, out: &mut Vec<u8>, mut each: impl FnMut(&mut Vec<u8>, &V)) {
        msgpack::put_array(out, 1 + 2 * self.pairs.len());
        msgpack::put_uint(out, u64::from(self.bound.is_some()));
        for (key, value) in &self.pairs {
            out.extend_from_slice(key.bytes());
            each(out, value);
        }
    }

    pub fn decode(
        reader: &mut Reader<'_>,
        mut each: impl FnMut(&mut Reader<'_>) -> Known<V>,
    ) -> Known<Cap<V>> {
        let count = reader.array()?;
        if count % 2 == 0 {
            return Err(Unknown);
        }
        let truncated = match reader.int()? {
            0 => false,
            1 => true,
            _ => return Err(Unknown),
        };
        let mut cap = Cap { pairs: Vec::with_capacity((count / 2).min(1024)), bound: None };
        for _ in 0..count / 2 {
            let key = Raw::read_key(reader)?;
            if cap.pairs.last().is_some_and(|(before, _)| *before >= key) {
                return Err(Unknown);
            }
            let value = each(reader)?;
            cap.pairs.push((key, value));
        }
        if truncated {
            cap.bound = Some(cap.greatest());
        }
        Ok(cap)
    }
}

/// One accumulator in sixteen bytes: what is larger is behind a pointer.
pub enum Acc {
    Nothing,
    Int(i64),
    Big(Box<i128>),
    Moments(Box<[i128; 3]>),
    Entry(Box<Entry>),
    Entries(Box<Vec<Entry>>),
    Keyed(Box<Vec<(Raw, Entry)>>),
    Instants(Box<Vec<i64>>),
    Sessions(Box<Vec<(i64, i64, i64)>>),
    Counts(Box<Cap<i64>>),
    Hashes(Box<Vec<u64>>),
    Registers(Box<Vec<u8>>),
    Buckets(Box<Vec<(i64, i128)>>),
    Money(Box<Cap<Acc>>),
}

fn wide(number: i128) -> Acc {
    match i64::try_from(number) {
        Ok(small) => Acc::Int(small),
        Err(_) => Acc::Big(Box::new(number)),
    }
}

fn number_of(acc: &Acc) -> Option<i128> {
    match acc {
        Acc::Int(number) => Some(i128::from(*number)),
        Acc::Big(number) => Some(**number),
        _ => None,
    }
}

/// Tables of powers of two, from `core/feature/aggregates/decay.py`.
pub struct Weights {
    pub tables: [Vec<i128>; 3],
    /// Whether a sum has become so great that the next event is for Python to fold.
    full: AtomicBool,
}

impl Weights {
    pub fn new(tables: [Vec<i128>; 3]) -> Weights {
        Weights { tables, full: AtomicBool::new(false) }
    }

    #[inline]
    fn watch(&self, sum: i128) {
        if sum.unsigned_abs() >= GREATEST {
            self.full.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a sum has become too great since the last call.
    #[inline]
    pub fn take_full(&self) -> bool {
        let full = self.full.load(Ordering::Relaxed);
        if full {
            self.full.store(false, Ordering::Relaxed);
        }
        full
    }

    fn weight(&self, phase: i64) -> i128 {
        const BITS: u32 = 40;
        let [coarse, middle, fine] = &self.tables;
        let first = (coarse[(phase >> 20) as usize] * middle[((phase >> 10) & 1023) as usize]) >> BITS;
        (first * fine[(phase & 1023) as usize]) >> BITS
    }
}

impl Spec {
    /// Add one event; the value is of the kind that the aggregate was bound to.
    pub fn add(&self, acc: &mut Acc, value: &Val<'_>, at: i64, event: u64, weights: &Weights) {
        match (&self.kind, &mut *acc) {
            (Kind::Count, Acc::Int(count)) => *count += 1,
            (Kind::Count, _) => *acc = Acc::Int(1),
            (Kind::Latest, Acc::Int(latest)) => *latest = at.max(*latest),
            (Kind::Latest, _) => *acc = Acc::Int(at),
            (Kind::Sum | Kind::Min | Kind::Max | Kind::Moments | Kind::Histogram, _) => {
                self.add_number(acc, value, weights);
            }
            (Kind::First | Kind::Last, Acc::Entry(entry)) => {
                let new = (at, event);
                let wins =
                    if matches!(self.kind, Kind::First) { new < entry.place() } else { new > entry.place() };
                if wins {
                    **entry = Entry { at, event, value: value.raw() };
                }
            }
            (Kind::First | Kind::Last, _) => {
                *acc = Acc::Entry(Box::new(Entry { at, event, value: value.raw() }));
            }
            (Kind::LastK { k, distinct: false, .. }, _) => {
                add_last(acc, Entry { at, event, value: value.raw() }, *k);
            }
            (Kind::LastK { k, .. }, _) => {
                add_distinct(acc, Entry { at, event, value: value.raw() }, *k);
            }
            (Kind::Instants { k }, _) => add_instant(acc, at, *k),
            (Kind::TopK { cap }, _) => add_count(acc, &value.raw(), *cap),
            (Kind::Distinct { cap, precision }, _) => {
                // A calculated number may be greater than MessagePack has them.
                let hash = match value {
                    Val::Int(number) => rank_of_int(*number),
                    value => value.raw().rank(),
                };
                add_hash(acc, hash, *cap, *precision);
            }
            (Kind::Decay { half_life_ms, counts }, _) => {
                let (number, into_ms) = (at.div_euclid(*half_life_ms), at.rem_euclid(*half_life_ms));
                let phase = (i128::from(into_ms) << 30) / i128::from(*half_life_ms);
                let mut weighed = weights.weight(phase as i64);
                if let (false, Val::Int(number)) = (counts, value) {
                    weighed *= number;
                }
                weights.watch(add_bucket(acc, number, weighed));
            }
            (Kind::Sessions { gap_ms }, _) => add_session(acc, at, *gap_ms),
        }
    }

    /// As `add`, for values that are distinct by another field.
    pub fn add_keyed(&self, acc: &mut Acc, key: Raw, value: &Val<'_>, at: i64, event: u64) {
        let Kind::LastK { k, .. } = self.kind else { return };
        let entry = Entry { at, event, value: value.raw() };
        let Acc::Keyed(entries) = acc else {
            *acc = Acc::Keyed(Box::new(vec![(key, entry)]));
            return;
        };
        put_distinct(entries, k, (key, entry), |(key, _)| key, |(_, entry)| entry.place());
    }

    fn add_number(&self, acc: &mut Acc, value: &Val<'_>, weights: &Weights) {
        match value {
            Val::Money(amount, currency) if self.money => {
                if !matches!(acc, Acc::Money(_)) {
                    *acc = Acc::Money(Box::new(Cap::new()));
                }
                let Acc::Money(cap) = acc else { return };
                let key = Raw::of_str(currency);
                if let Some(one) = cap.entry(&key, CURRENCIES_MAX, || Acc::Nothing) {
                    self.next_number(one, *amount, weights);
                }
            }
            Val::Int(number) => self.next_number(acc, *number, weights),
            _ => {}
        }
    }

    fn next_number(&self, acc: &mut Acc, number: i128, weights: &Weights) {
        match self.kind {
            Kind::Sum => {
                let sum = number_of(acc).unwrap_or(0) + number;
                weights.watch(sum);
                *acc = wide(sum);
            }
            Kind::Min => *acc = wide(number_of(acc).map_or(number, |held| held.min(number))),
            Kind::Max => *acc = wide(number_of(acc).map_or(number, |held| held.max(number))),
            Kind::Histogram => {
                add_bucket(acc, bucket(number), 1);
            }
            _ => {
                if let Acc::Moments(three) = acc {
                    three[0] += 1;
                    three[1] += number;
                    three[2] += number * number;
                    weights.watch(three[2]);
                } else {
                    *acc = Acc::Moments(Box::new([1, number, number * number]));
                }
            }
        }
    }

    /// Drop what occurred before an instant, of an accumulator that carries its own time.
    pub fn since(&self, acc: &mut Acc, floor: i64) {
        let empty = match acc {
            Acc::Int(at) => *at < floor,
            Acc::Entry(entry) => entry.at < floor,
            Acc::Entries(entries) => {
                entries.retain(|entry| entry.at >= floor);
                entries.is_empty()
            }
            Acc::Keyed(entries) => {
                entries.retain(|(_, entry)| entry.at >= floor);
                entries.is_empty()
            }
            Acc::Instants(instants) => {
                instants.retain(|at| *at >= floor);
                instants.is_empty()
            }
            _ => false,
        };
        if empty {
            *acc = Acc::Nothing;
        }
    }

    /// Write an accumulator; of one that carries its own time what occurred from `floor` on, or nil.
    pub fn encode(&self, out: &mut Vec<u8>, acc: &Acc, floor: i64) {
        match acc {
            Acc::Nothing => out.push(msgpack::NIL),
            Acc::Int(number) => {
                if floor != FOREVER && *number < floor {
                    out.push(msgpack::NIL);
                } else {
                    msgpack::put_int(out, *number);
                }
            }
            Acc::Big(number) => msgpack::put_wide(out, **number),
            Acc::Moments(three) => {
                out.push(0x93);
                three.iter().for_each(|number| msgpack::put_wide(out, *number));
            }
            Acc::Entry(entry) => {
                if entry.at < floor {
                    out.push(msgpack::NIL);
                } else {
                    out.push(0x93);
                    put_entry(out, entry);
                }
            }
            Acc::Entries(entries) => {
                put_live(out, entries, 3, |entry| entry.at >= floor, put_entry);
            }
            Acc::Keyed(entries) => {
                put_live(
                    out,
                    entries,
                    4,
                    |(_, entry)| entry.at >= floor,
                    |out, (key, entry)| {
                        put_entry(out, entry);
                        out.extend_from_slice(key.bytes());
                    },
                );
            }
            Acc::Instants(instants) => {
                put_live(out, instants, 1, |at| *at >= floor, |out, at| msgpack::put_int(out, *at));
            }
            Acc::Sessions(sessions) => {
                msgpack::put_array(out, 3 * sessions.len());
                for (start, end, count) in sessions.iter() {
                    msgpack::put_int(out, *start);
                    msgpack::put_int(out, end - start);
                    msgpack::put_int(out, *count);
                }
            }
            Acc::Counts(cap) => cap.encode(out, |out, count| msgpack::put_int(out, *count)),
            Acc::Hashes(hashes) => {
                msgpack::put_array(out, hashes.len());
                hashes.iter().for_each(|hash| msgpack::put_uint(out, *hash));
            }
            Acc::Registers(registers) => put_registers(out, registers),
            Acc::Buckets(buckets) => {
                msgpack::put_array(out, 2 * buckets.len());
                for (number, sum) in buckets.iter() {
                    msgpack::put_int(out, *number);
                    msgpack::put_wide(out, *sum);
                }
            }
            Acc::Money(cap) => cap.encode(out, |out, one| self.encode(out, one, FOREVER)),
        }
    }

    pub fn decode(&self, reader: &mut Reader<'_>) -> Known<Acc> {
        if self.money && !matches!(self.kind, Kind::Count) {
            let one = Spec { money: false, ..self.clone() };
            let cap = Cap::decode(reader, |reader| one.decode(reader))?;
            return Ok(Acc::Money(Box::new(cap)));
        }
        Ok(match &self.kind {
            Kind::Count | Kind::Latest => Acc::Int(reader.narrow()?),
            Kind::Sum | Kind::Min | Kind::Max => wide(read_wide(reader)?),
            Kind::Moments => {
                if reader.array()? != 3 {
                    return Err(Unknown);
                }
                Acc::Moments(Box::new([read_wide(reader)?, read_wide(reader)?, read_wide(reader)?]))
            }
            Kind::First | Kind::Last => {
                if reader.array()? != 3 {
                    return Err(Unknown);
                }
                Acc::Entry(Box::new(read_entry(reader)?))
            }
            Kind::LastK { keyed: false, .. } => {
                let count = groups_of(reader, 3)?;
                let distinct = matches!(self.kind, Kind::LastK { distinct: true, .. });
                let value = if distinct { Raw::read_key } else { Raw::read };
                let one = |reader: &mut Reader<'_>| {
                    Ok(Entry { at: reader.narrow()?, event: reader.u64()?, value: value(reader)? })
                };
                let entries = (0..count).map(|_| one(reader)).collect::<Known<Vec<_>>>()?;
                in_order(&entries, Entry::place, |entry| distinct.then_some(&entry.value))?;
                Acc::Entries(Box::new(entries))
            }
            Kind::LastK { .. } => {
                let count = groups_of(reader, 4)?;
                let pair = |reader: &mut Reader<'_>| {
                    let entry = read_entry(reader)?;
                    Ok((Raw::read_key(reader)?, entry))
                };
                let entries = (0..count).map(|_| pair(reader)).collect::<Known<Vec<_>>>()?;
                in_order(&entries, |(_, entry)| entry.place(), |(key, _)| Some(key))?;
                Acc::Keyed(Box::new(entries))
            }
            Kind::Instants { .. } => {
                let count = groups_of(reader, 1)?;
                let instants = (0..count).map(|_| reader.narrow()).collect::<Known<Vec<_>>>()?;
                if !instants.is_sorted() {
                    return Err(Unknown);
                }
                Acc::Instants(Box::new(instants))
            }
            Kind::Sessions { .. } => {
                let count = groups_of(reader, 3)?;
                let one = |reader: &mut Reader<'_>| {
                    let (start, length) = (reader.narrow()?, reader.narrow()?);
                    Ok((start, start + length, reader.narrow()?))
                };
                Acc::Sessions(Box::new((0..count).map(|_| one(reader)).collect::<Known<_>>()?))
            }
            Kind::TopK { .. } => Acc::Counts(Box::new(Cap::decode(reader, |reader| reader.narrow())?)),
            Kind::Distinct { precision, .. } => decode_hashes(reader, *precision)?,
            Kind::Decay { .. } | Kind::Histogram => {
                let count = groups_of(reader, 2)?;
                let mut buckets = Vec::with_capacity(count.min(1024));
                for _ in 0..count {
                    let number = reader.i64()?;
                    if buckets.last().is_some_and(|(before, _)| *before >= number) {
                        return Err(Unknown);
                    }
                    buckets.push((number, read_wide(reader)?));
                }
                Acc::Buckets(Box::new(buckets))
            }
        })
    }

    /// The estimate of an accumulator's encoded bytes.
    pub fn size(&self, acc: &Acc) -> i64 {
        match acc {
            Acc::Nothing => 0,
            Acc::Int(_) | Acc::Big(_) | Acc::Moments(_) => self.charge,
            Acc::Entry(entry) => ENTRY_BYTES + entry.value.charge(),
            Acc::Entries(entries) => entries.iter().map(|entry| ENTRY_BYTES + entry.value.charge()).sum(),
            Acc::Keyed(entries) => {
                entries.iter().map(|(key, entry)| key.charge() + ENTRY_BYTES + entry.value.charge()).sum()
            }
            Acc::Instants(instants) => self.charge * instants.len() as i64,
            Acc::Sessions(sessions) => self.charge * sessions.len() as i64,
            Acc::Counts(cap) => {
                let texts: i64 =
                    cap.pairs.iter().filter_map(|(key, _)| key.text()).map(crate::raw::chars).sum();
                self.charge * cap.counted() as i64 + texts
            }
            Acc::Hashes(hashes) => 9 * hashes.len() as i64,
            Acc::Registers(registers) => {
                let set = registers.iter().filter(|rank| **rank != 0).count();
                (3 * set).min(registers.len()) as i64
            }
            Acc::Buckets(buckets) => {
                let each = if matches!(self.kind, Kind::Histogram) { BUCKET_BYTES } else { self.charge };
                each * buckets.len() as i64
            }
            Acc::Money(cap) if matches!(self.kind, Kind::Histogram) => cap
                .pairs
                .iter()
                .map(|(_, one)| match one {
                    Acc::Buckets(buckets) => BUCKET_BYTES * (1 + buckets.len() as i64),
                    _ => BUCKET_BYTES,
                })
                .sum(),
            Acc::Money(cap) => self.charge * cap.counted() as i64,
        }
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    msgpack::put_int(out, entry.at);
    msgpack::put_uint(out, entry.event);
    out.extend_from_slice(entry.value.bytes());
}

fn put_live<T>(
    out: &mut Vec<u8>,
    items: &[T],
    width: usize,
    lives: impl Fn(&T) -> bool,
    mut put: impl FnMut(&mut Vec<u8>, &T),
) {
    let count = items.iter().filter(|item| lives(item)).count();
    if count == 0 {
        out.push(msgpack::NIL);
        return;
    }
    msgpack::put_array(out, width * count);
    items.iter().filter(|item| lives(item)).for_each(|item| put(out, item));
}

fn read_entry(reader: &mut Reader<'_>) -> Known<Entry> {
    Ok(Entry { at: reader.narrow()?, event: reader.u64()?, value: Raw::read(reader)? })
}

fn read_wide(reader: &mut Reader<'_>) -> Known<i128> {
    let number = match reader.peek()? {
        0xa0..=0xbf | 0xd9..=0xdb => reader.str()?.parse().map_err(|_| Unknown)?,
        _ => reader.int()?,
    };
    if number.unsigned_abs() < GREATEST { Ok(number) } else { Err(Unknown) }
}

/// Whether entries ascend, and no two have one key, as they are written: what Python makes of others is Python's.
fn in_order<T>(
    entries: &[T],
    place: impl Fn(&T) -> (i64, u64),
    key: impl Fn(&T) -> Option<&Raw>,
) -> Known<()> {
    let known = |at: usize| {
        key(&entries[at]).is_some_and(|new| entries[..at].iter().any(|one| key(one) == Some(new)))
    };
    if entries.is_sorted_by_key(place) && !(0..entries.len()).any(known) { Ok(()) } else { Err(Unknown) }
}

fn groups_of(reader: &mut Reader<'_>, width: usize) -> Known<usize> {
    let count = reader.array()?;
    if count == 0 || count % width != 0 { Err(Unknown) } else { Ok(count / width) }
}

fn add_last(acc: &mut Acc, entry: Entry, k: usize) {
    let Acc::Entries(entries) = acc else {
        *acc = Acc::Entries(Box::new(vec![entry]));
        return;
    };
    let mut place = entries.len();
    while place > 0 && entry.place() < entries[place - 1].place() {
        place -= 1;
    }
    entries.insert(place, entry);
    if entries.len() > k {
        entries.remove(0);
    }
}

fn add_distinct(acc: &mut Acc, entry: Entry, k: usize) {
    let Acc::Entries(entries) = acc else {
        *acc = Acc::Entries(Box::new(vec![entry]));
        return;
    };
    put_distinct(entries, k, entry, |entry| &entry.value, Entry::place);
}

/// Keep the newest entry of each key, oldest first; of equal places the order of arrival stays.
fn put_distinct<T>(
    entries: &mut Vec<T>,
    k: usize,
    new: T,
    key: impl Fn(&T) -> &Raw,
    place: impl Fn(&T) -> (i64, u64),
) {
    let standing = entries.iter().position(|held| key(held) == key(&new));
    if entries.last().is_some_and(|last| place(&new).0 > place(last).0) {
        match standing {
            Some(at) => {
                entries.remove(at);
            }
            None if entries.len() >= k => {
                entries.remove(0);
            }
            None => {}
        }
        entries.push(new);
        return;
    }
    match standing {
        Some(at) if place(&new) < place(&entries[at]) => return,
        Some(at) => entries[at] = new,
        None if entries.len() >= k && place(&new) < place(&entries[0]) => return,
        None => entries.push(new),
    }
    entries.sort_by_key(|held| place(held));
    let over = entries.len().saturating_sub(k);
    entries.drain(..over);
}

fn add_instant(acc: &mut Acc, at: i64, k: usize) {
    let Acc::Instants(instants) = acc else {
        *acc = Acc::Instants(Box::new(vec![at]));
        return;
    };
    let mut place = instants.len();
    while place > 0 && at < instants[place - 1] {
        place -= 1;
    }
    instants.insert(place, at);
    if instants.len() > k + 1 {
        instants.remove(0);
    }
}

fn add_count(acc: &mut Acc, key: &Raw, cap: usize) {
    if !matches!(acc, Acc::Counts(_)) {
        *acc = Acc::Counts(Box::new(Cap::new()));
    }
    let Acc::Counts(counts) = acc else { return };
    if let Some(count) = counts.entry(key, cap, || 0) {
        *count += 1;
    }
}

/// Add to a bucket; return what is in it then.
fn add_bucket(acc: &mut Acc, number: i64, more: i128) -> i128 {
    let Acc::Buckets(buckets) = acc else {
        *acc = Acc::Buckets(Box::new(vec![(number, more)]));
        return more;
    };
    match buckets.binary_search_by_key(&number, |(held, _)| *held) {
        Ok(place) => {
            buckets[place].1 += more;
            buckets[place].1
        }
        Err(place) => {
            buckets.insert(place, (number, more));
            more
        }
    }
}

/// The bucket of a number; see `core/feature/aggregates/quantile.py`.
fn bucket(number: i128) -> i64 {
    const SUB_BITS: u32 = 5;
    if number < 0 {
        return -bucket(-number);
    }
    let number = number.min((1 << 63) - 1) as u64;
    if number < 2 << SUB_BITS {
        return number as i64;
    }
    let up = (64 - number.leading_zeros()) - SUB_BITS - 1;
    (i64::from(up) << SUB_BITS) + (number >> up) as i64
}

fn add_session(acc: &mut Acc, at: i64, gap_ms: i64) {
    let Acc::Sessions(sessions) = acc else {
        *acc = Acc::Sessions(Box::new(vec![(at, at, 1)]));
        return;
    };
    if let Some(last) = sessions.last_mut().filter(|last| last.1 <= at) {
        if at - last.1 < gap_ms {
            *last = (last.0, at, last.2 + 1);
        } else {
            sessions.push((at, at, 1));
        }
        return;
    }
    sessions.push((at, at, 1));
    sessions.sort_unstable();
    let mut joined: Vec<(i64, i64, i64)> = Vec::with_capacity(sessions.len());
    for (start, end, count) in sessions.iter().copied() {
        match joined.last_mut() {
            Some(last) if start - last.1 < gap_ms => {
                *last = (last.0, last.1.max(end), last.2 + count);
            }
            _ => joined.push((start, end, count)),
        }
    }
    **sessions = joined;
}

fn add_hash(acc: &mut Acc, hash: u64, cap: usize, precision: u32) {
    match acc {
        Acc::Hashes(hashes) => {
            if let Err(place) = hashes.binary_search(&hash) {
                hashes.insert(place, hash);
            }
            if hashes.len() > cap {
                let mut registers = vec![0; 1 << precision];
                hashes.iter().for_each(|hash| raise(&mut registers, *hash, precision));
                *acc = Acc::Registers(Box::new(registers));
            }
        }
        Acc::Registers(registers) => raise(registers, hash, precision),
        _ => *acc = Acc::Hashes(Box::new(vec![hash])),
    }
}

fn raise(registers: &mut [u8], hash: u64, precision: u32) {
    let rest_bits = 64 - precision;
    let place = (hash >> rest_bits) as usize;
    let rest = hash & ((1 << rest_bits) - 1);
    let rank = (rest_bits - (64 - rest.leading_zeros()) + 1) as u8;
    registers[place] = registers[place].max(rank);
}

fn put_registers(out: &mut Vec<u8>, registers: &[u8]) {
    let set = registers.iter().filter(|rank| **rank != 0).count();
    if 3 * set > registers.len() {
        msgpack::put_bin(out, registers);
        return;
    }
    let mut packed = Vec::with_capacity(3 * set);
    for (place, rank) in registers.iter().enumerate().filter(|(_, rank)| **rank != 0) {
        let entry = (place as u32) << RANK_BITS | u32::from(*rank);
        packed.extend_from_slice(&entry.to_be_bytes()[1..]);
    }
    msgpack::put_bin(out, &packed);
}

fn decode_hashes(reader: &mut Reader<'_>, precision: u32) -> Known<Acc> {
    if !matches!(reader.peek()?, 0xc4..=0xc6) {
        let count = groups_of(reader, 1)?;
        let hashes = (0..count).map(|_| reader.u64()).collect::<Known<Vec<_>>>()?;
        if !hashes.is_sorted_by(|one, other| one < other) {
            return Err(Unknown);
        }
        return Ok(Acc::Hashes(Box::new(hashes)));
    }
    let raw = reader.bin()?;
    if raw.len() == 1 << precision {
        return Ok(Acc::Registers(Box::new(raw.to_vec())));
    }
    let mut registers = vec![0; 1 << precision];
    for entry in raw.chunks(3) {
        let &[high, middle, low] = entry else { return Err(Unknown) };
        let entry = u32::from_be_bytes([0, high, middle, low]);
        *registers.get_mut((entry >> RANK_BITS) as usize).ok_or(Unknown)? =
            (entry & ((1 << RANK_BITS) - 1)) as u8;
    }
    Ok(Acc::Registers(Box::new(registers)))
}
