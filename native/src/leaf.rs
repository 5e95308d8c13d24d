//! A leaf in compact form, and its bytes: those that `core/leaf.py` writes and reads.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::cell::State;
use crate::consent::{Entry, Words, WordsTable, merge_into};
use crate::edge::{Edge, Edges, Texts};
use crate::hash::Plain;
use crate::msgpack::{self, Known, Reader, Unknown};
use crate::plan::Plan;
use crate::raw::{Raw, chars};

pub const LEAF_FORMAT: i64 = 1;
pub const ID_TILE_MS: i64 = 6 * 3_600_000;
pub const ID_TILES: i64 = 13;
pub const NEVER: i64 = i64::MIN;

const ID_BYTES: i64 = 9;
const EDGE_BYTES: i64 = 96;
const TRAIT_BYTES: i64 = 24;
const CONSENT_BYTES: i64 = 40;
const SMALL_IDS: usize = 24;

pub type Version = (i64, i64);
pub const NO_VERSION: Version = (0, -1);

/// The ids a leaf remembers, each with its tile: a short list, and a table once it is long.
pub enum Ids {
    Few(Vec<(u64, i32)>),
    Many(Box<HashMap<u64, i32, Plain>>),
}

impl Ids {
    #[inline]
    pub fn get(&self, event: u64) -> Option<i64> {
        match self {
            Ids::Few(list) => list.iter().find(|(held, _)| *held == event).map(|(_, tile)| i64::from(*tile)),
            Ids::Many(table) => table.get(&event).map(|tile| i64::from(*tile)),
        }
    }

    #[inline]
    pub fn put(&mut self, event: u64, tile: i32) {
        match self {
            Ids::Few(list) => {
                if let Some(held) = list.iter_mut().find(|(held, _)| *held == event) {
                    held.1 = tile;
                } else if list.len() < SMALL_IDS {
                    if list.is_empty() {
                        list.reserve_exact(2);
                    }
                    list.push((event, tile));
                } else {
                    let mut table: HashMap<u64, i32, Plain> = list.drain(..).collect();
                    table.insert(event, tile);
                    *self = Ids::Many(Box::new(table));
                }
            }
            Ids::Many(table) => {
                table.insert(event, tile);
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Ids::Few(list) => list.len(),
            Ids::Many(table) => table.len(),
        }
    }

    fn keep_after(&mut self, floor: i64) {
        match self {
            Ids::Few(list) => list.retain(|(_, tile)| i64::from(*tile) > floor),
            Ids::Many(table) => {
                table.retain(|_, tile| i64::from(*tile) > floor);
                if table.len() <= SMALL_IDS {
                    *self = Ids::Few(table.drain().collect());
                }
            }
        }
    }

    fn live(&self, floor: i64) -> Vec<(i32, u64)> {
        let alive = |(event, tile): (u64, i32)| (i64::from(tile) > floor).then_some((tile, event));
        let mut found: Vec<(i32, u64)> = match self {
            Ids::Few(list) => list.iter().copied().filter_map(alive).collect(),
            Ids::Many(table) => table.iter().map(|(event, tile)| (*event, *tile)).filter_map(alive).collect(),
        };
        found.sort_unstable();
        found
    }
}

/// A register of a trait: the greatest (rank, time, event) stands.
#[derive(Clone)]
pub struct Trait {
    pub rank: i64,
    pub at: i64,
    pub event: u64,
    pub value: Raw,
}

impl Trait {
    pub fn place(&self) -> (i64, i64, u64) {
        (self.rank, self.at, self.event)
    }

    fn charge(&self) -> i64 {
        fn value(reader: &mut Reader<'_>) -> Known<i64> {
            Ok(match reader.peek()? {
                0xa0..=0xbf | 0xd9..=0xdb => chars(reader.str()?) + 2,
                0x90..=0x9f | 0xdc | 0xdd => {
                    let mut sum = 2;
                    for _ in 0..reader.array()? {
                        sum += value(reader)?;
                    }
                    sum
                }
                0x80..=0x8f | 0xde | 0xdf => {
                    let mut sum = 2;
                    for _ in 0..reader.map()? {
                        sum += chars(reader.str()?) + 2 + value(reader)?;
                    }
                    sum
                }
                _ => {
                    reader.skip()?;
                    9
                }
            })
        }
        value(&mut Reader::new(self.value.bytes())).unwrap_or(9)
    }
}

/// What most leaves have nothing of.
#[derive(Default)]
pub struct Rare {
    pub jobs: Vec<(String, BTreeSet<u64>)>,
    pub consent: Vec<(Arc<str>, Entry)>,
    pub purged: Vec<(String, i64)>,
    /// By name, ascending: those beneath, ascending, and the one that stands, last.
    pub traits: Vec<(String, Vec<Trait>)>,
}

impl Rare {
    pub fn trait_size(&self, name: &str) -> i64 {
        match self.traits.binary_search_by(|(held, _)| held.as_str().cmp(name)) {
            Ok(place) => trait_size(&self.traits[place]),
            Err(_) => 0,
        }
    }
}

fn trait_size((name, line): &(String, Vec<Trait>)) -> i64 {
    let each = TRAIT_BYTES + chars(name);
    line.iter().map(|one| each + one.charge()).sum()
}

pub struct Leaf {
    pub version: Version,
    pub clock_ms: i64,
    pub size: i64,
    pub words: Option<Arc<Words>>,
    pub words_at_ms: i64,
    pub words_event: u64,
    pub ids: Ids,
    pub states: Box<[State]>,
    pub edges: Edges,
    pub rare: Option<Box<Rare>>,
    pub id_type: Arc<str>,
    pub value: Option<Box<str>>,
    pub applied: i64,
    pub deduplicated: i64,
    pub dropped: i64,
    pub dead: i64,
    pub links: i64,
    pub quarantined: bool,
    /// A sum of it is so great that its next record is Python's.
    pub full: bool,
}

impl Leaf {
    pub fn new(plan: &Plan, texts: &mut Texts) -> Leaf {
        Leaf {
            version: NO_VERSION,
            clock_ms: 0,
            size: 0,
            words: None,
            words_at_ms: -1,
            words_event: 0,
            ids: Ids::Few(Vec::new()),
            states: plan.cells.iter().map(|_| State::None).collect(),
            edges: Edges::default(),
            rare: None,
            id_type: texts.of(""),
            value: None,
            applied: 0,
            deduplicated: 0,
            dropped: 0,
            dead: 0,
            links: 0,
            quarantined: false,
            full: false,
        }
    }

    #[inline]
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub fn purged(&self) -> &[(String, i64)] {
        self.rare.as_ref().map_or(&[], |rare| &rare.purged)
    }

    fn own(&self) -> &[(Arc<str>, Entry)] {
        self.rare.as_ref().map_or(&[], |rare| &rare.consent)
    }

    fn said(&self, ledger: &mut Vec<(Arc<str>, Entry)>) {
        if let (Some(words), true) = (&self.words, self.words_at_ms >= 0) {
            for word in words.iter() {
                let entry = word.entry(self.words_at_ms, self.words_event);
                merge_into(ledger, &word.purpose, entry);
            }
        }
    }

    /// The ledger, by purpose, ascending.
    pub fn consent(&self) -> Vec<(Arc<str>, Entry)> {
        let mut ledger = self.own().to_vec();
        self.said(&mut ledger);
        ledger
    }

    pub fn knows(&self, purpose: &str) -> bool {
        self.own().iter().any(|(held, _)| &**held == purpose)
            || (self.words_at_ms >= 0
                && self
                    .words
                    .as_ref()
                    .is_some_and(|words| words.iter().any(|word| &*word.purpose == purpose)))
    }

    /// The ledger to change: what `words` said last is brought into it.
    pub fn own_consent(&mut self) -> &mut Vec<(Arc<str>, Entry)> {
        if self.words_at_ms >= 0 {
            let ledger = self.consent();
            self.words_at_ms = -1;
            self.words_event = 0;
            self.rare().consent = ledger;
        }
        &mut self.rare().consent
    }

    /// Drop what the clock has expired, and measure what is left.
    pub fn expire(&mut self, plan: &Plan) {
        self.ids.keep_after(expired_id_tile(self.clock_ms));
        let Leaf { states, rare, .. } = self;
        let purged: &[(String, i64)] = rare.as_ref().map_or(&[], |rare| &rare.purged);
        let mut size = 0;
        for (cell, state) in plan.cells.iter().zip(states.iter_mut()) {
            let Some(cell) = cell else {
                size += 1;
                continue;
            };
            if !matches!(state, State::None) {
                cell.expire(state, cell.floor(self.clock_ms, purged, &plan.zone));
            }
            size += cell.size(state);
        }
        let mut ids = self.ids.len();
        if let Some(rare) = &self.rare {
            ids += rare.jobs.iter().map(|(_, events)| events.len()).sum::<usize>();
            size += rare.traits.iter().map(trait_size).sum::<i64>();
        }
        size += ID_BYTES * ids as i64;
        size += EDGE_BYTES * self.edges.all.len() as i64;
        size += CONSENT_BYTES * self.consent().len() as i64;
        self.size = size;
    }

    pub fn encode(&self, plan: &Plan, out: &mut Vec<u8>) {
        out.push(0x9f);
        msgpack::put_int(out, LEAF_FORMAT);
        msgpack::put_str(out, &plan.fingerprint);
        msgpack::put_str(out, &self.id_type);
        match &self.value {
            None => out.push(msgpack::NIL),
            Some(value) => msgpack::put_str(out, value),
        }
        msgpack::put_int(out, self.clock_ms);
        out.push(0x95);
        for count in [self.applied, self.deduplicated, self.dropped, self.dead, self.links] {
            msgpack::put_int(out, count);
        }
        self.encode_ids(out);
        let none = Rare::default();
        let rare = self.rare.as_deref().unwrap_or(&none);
        let mut jobs: Vec<_> = rare.jobs.iter().collect();
        jobs.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        msgpack::put_array(out, jobs.len());
        for (job, events) in jobs {
            out.push(0x92);
            msgpack::put_str(out, job);
            msgpack::put_array(out, events.len());
            events.iter().for_each(|event| msgpack::put_uint(out, *event));
        }
        msgpack::put_array(out, self.edges.all.len());
        self.edges.all.iter().for_each(|edge| edge.write(out));
        self.encode_consent(out);
        let mut purged: Vec<_> = rare.purged.iter().collect();
        purged.sort_unstable();
        msgpack::put_array(out, purged.len());
        for (purpose, at_ms) in purged {
            out.push(0x92);
            msgpack::put_str(out, purpose);
            msgpack::put_int(out, *at_ms);
        }
        msgpack::put_array(out, rare.traits.iter().map(|(_, line)| line.len()).sum());
        for (name, line) in &rare.traits {
            for one in line {
                out.push(0x92);
                msgpack::put_str(out, name);
                out.push(0x94);
                msgpack::put_int(out, one.rank);
                msgpack::put_int(out, one.at);
                msgpack::put_uint(out, one.event);
                out.extend_from_slice(one.value.bytes());
            }
        }
        msgpack::put_int(out, self.size);
        msgpack::put_bool(out, self.quarantined);
        msgpack::put_array(out, self.states.len());
        let purged = self.purged();
        for (cell, state) in plan.cells.iter().zip(self.states.iter()) {
            match cell {
                Some(cell) => cell.encode(out, state, cell.floor(self.clock_ms, purged, &plan.zone)),
                None => out.push(msgpack::NIL),
            }
        }
    }

    fn encode_ids(&self, out: &mut Vec<u8>) {
        let live = self.ids.live(expired_id_tile(self.clock_ms));
        let tiles = live.chunk_by(|one, other| one.0 == other.0);
        msgpack::put_array(out, tiles.clone().count());
        for tile in tiles {
            out.push(0x92);
            msgpack::put_int(out, i64::from(tile[0].0));
            msgpack::put_array(out, tile.len());
            tile.iter().for_each(|(_, event)| msgpack::put_uint(out, *event));
        }
    }

    fn encode_consent(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>, purpose: &str, entry: &Entry| {
            out.push(0x92);
            msgpack::put_str(out, purpose);
            entry.write(out);
        };
        if let (true, [], Some(words)) = (self.words_at_ms >= 0, self.own(), &self.words) {
            // The commonest: one evidence is all that the leaf ever says.
            if words.is_sorted_by(|one, other| one.purpose < other.purpose) {
                msgpack::put_array(out, words.len());
                for word in words.iter() {
                    put(out, &word.purpose, &word.entry(self.words_at_ms, self.words_event));
                }
                return;
            }
        }
        let ledger = self.consent();
        msgpack::put_array(out, ledger.len());
        ledger.iter().for_each(|(purpose, entry)| put(out, purpose, entry));
    }

    /// Return the leaf of its bytes; what is not known here, or not as it is written here, is Python's.
    pub fn decode(
        raw: &[u8],
        version: Version,
        plan: &Plan,
        texts: &mut Texts,
        table: &mut WordsTable,
    ) -> Known<Leaf> {
        let mut leaf = Leaf::new(plan, texts);
        leaf.version = version;
        let reader = &mut Reader::new(raw);
        if reader.array()? != 15 || reader.i64()? != LEAF_FORMAT || reader.str()? != plan.fingerprint {
            return Err(Unknown);
        }
        leaf.id_type = texts.of(reader.str()?);
        leaf.value = if reader.nil() { None } else { Some(reader.str()?.into()) };
        leaf.clock_ms = reader.narrow()?;
        if reader.array()? != 5 {
            return Err(Unknown);
        }
        leaf.applied = reader.narrow()?;
        leaf.deduplicated = reader.narrow()?;
        leaf.dropped = reader.narrow()?;
        leaf.dead = reader.narrow()?;
        leaf.links = reader.narrow()?;
        leaf.decode_ids(reader)?;
        for _ in 0..reader.array()? {
            pair(reader)?;
            let job = reader.str()?.to_owned();
            let mut events = BTreeSet::new();
            for _ in 0..reader.array()? {
                events.insert(reader.u64()?);
            }
            let jobs = &mut leaf.rare().jobs;
            if jobs.last().is_some_and(|(before, _)| *before >= job) {
                return Err(Unknown);
            }
            jobs.push((job, events));
        }
        let edges = reader.array()?;
        leaf.edges.all.reserve_exact(edges.min(1024));
        for _ in 0..edges {
            let edge = Edge::read(reader, texts)?;
            if leaf.edges.all.last().is_some_and(|before| before.key() >= edge.key()) {
                return Err(Unknown);
            }
            leaf.edges.all.push(edge);
        }
        let mut ledger: Vec<(Arc<str>, Entry)> = Vec::new();
        for _ in 0..reader.array()? {
            pair(reader)?;
            let purpose = texts.of(reader.str()?);
            if ledger.last().is_some_and(|(before, _)| *before >= purpose) {
                return Err(Unknown);
            }
            ledger.push((purpose, Entry::read(reader, texts)?));
        }
        leaf.take_ledger(ledger, table);
        for _ in 0..reader.array()? {
            pair(reader)?;
            let purpose = reader.str()?.to_owned();
            let at_ms = reader.narrow()?;
            let purged = &mut leaf.rare().purged;
            if purged.last().is_some_and(|(before, _)| *before >= purpose) {
                return Err(Unknown);
            }
            purged.push((purpose, at_ms));
        }
        leaf.decode_traits(reader)?;
        leaf.size = reader.narrow()?;
        leaf.quarantined = reader.bool()?;
        if reader.array()? != plan.cells.len() {
            return Err(Unknown);
        }
        for (cell, state) in plan.cells.iter().zip(leaf.states.iter_mut()) {
            match cell {
                Some(cell) => *state = cell.decode(reader)?,
                None if reader.nil() => {}
                None => return Err(Unknown),
            }
        }
        reader.done()?;
        if plan.calendar && !(leaf.purged().is_empty() && plan.zone.offset_ms(leaf.clock_ms).is_some()) {
            return Err(Unknown);
        }
        Ok(leaf)
    }

    fn decode_ids(&mut self, reader: &mut Reader<'_>) -> Known<()> {
        for _ in 0..reader.array()? {
            pair(reader)?;
            let tile = i32::try_from(reader.i64()?).map_err(|_| Unknown)?;
            let count = reader.array()?;
            match &mut self.ids {
                Ids::Few(list) if list.len() + count <= SMALL_IDS => list.reserve_exact(count),
                _ => {}
            }
            for _ in 0..count {
                self.ids.put(reader.u64()?, tile);
            }
        }
        Ok(())
    }

    fn decode_traits(&mut self, reader: &mut Reader<'_>) -> Known<()> {
        for _ in 0..reader.array()? {
            pair(reader)?;
            let name = reader.str()?;
            if reader.array()? != 4 {
                return Err(Unknown);
            }
            let (rank, at, event) = (reader.i64()?, reader.i64()?, reader.u64()?);
            let one = Trait { rank, at, event, value: Raw::read(reader)? };
            let traits = &mut self.rare().traits;
            match traits.last_mut() {
                Some((held, line)) if held == name => line.push(one),
                Some((held, _)) if held.as_str() > name => return Err(Unknown),
                _ => traits.push((name.to_owned(), vec![one])),
            }
        }
        Ok(())
    }

    fn take_ledger(&mut self, ledger: Vec<(Arc<str>, Entry)>, table: &mut WordsTable) {
        match table.as_said(&ledger) {
            Some((words, at_ms, event)) => {
                self.words = Some(words);
                self.words_at_ms = at_ms;
                self.words_event = event;
            }
            None if ledger.is_empty() => {}
            None => self.rare().consent = ledger,
        }
    }
}

fn pair(reader: &mut Reader<'_>) -> Known<()> {
    if reader.array()? == 2 { Ok(()) } else { Err(Unknown) }
}

pub fn expired_id_tile(clock_ms: i64) -> i64 {
    clock_ms.div_euclid(ID_TILE_MS) - ID_TILES
}
