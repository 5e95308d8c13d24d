//! Words of consent and the ledger that they make; see `core/consent/ledger.py`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::edge::Texts;
use crate::msgpack::{self, Known, Reader, Unknown};

/// What stands for one purpose: an explicit word, and a weaker lawful basis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at_ms: i64,
    pub denied: bool,
    pub event: u64,
    pub source: Arc<str>,
    pub basis_at_ms: i64,
    pub basis: Arc<str>,
}

impl Entry {
    pub fn read(reader: &mut Reader<'_>, texts: &mut Texts) -> Known<Entry> {
        if reader.array()? != 6 {
            return Err(Unknown);
        }
        let entry = Entry {
            at_ms: reader.i64()?,
            denied: reader.bool()?,
            event: reader.u64()?,
            source: texts.of(reader.str()?),
            basis_at_ms: reader.i64()?,
            basis: texts.of(reader.str()?),
        };
        // No basis has no time: as others merge, only Python knows.
        if entry.basis.is_empty() && entry.basis_at_ms != 0 { Err(Unknown) } else { Ok(entry) }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(0x96);
        msgpack::put_int(out, self.at_ms);
        msgpack::put_bool(out, self.denied);
        msgpack::put_uint(out, self.event);
        msgpack::put_str(out, &self.source);
        msgpack::put_int(out, self.basis_at_ms);
        msgpack::put_str(out, &self.basis);
    }

    fn word(&self) -> (bool, i64, bool, u64, &str) {
        (!self.source.is_empty(), self.at_ms, self.denied, self.event, &self.source)
    }

    fn grounds(&self) -> (bool, i64, &str) {
        (self.basis.is_empty(), self.basis_at_ms, &self.basis)
    }

    fn merged(&self, other: &Entry) -> Entry {
        let word = if other.word() > self.word() { other } else { self };
        let basis = if other.grounds() < self.grounds() { other } else { self };
        Entry { basis_at_ms: basis.basis_at_ms, basis: basis.basis.clone(), ..word.clone() }
    }
}

/// Merge an entry into a ledger, which is in the order of purposes; return whether it is a new one.
pub fn merge_into(ledger: &mut Vec<(Arc<str>, Entry)>, purpose: &Arc<str>, entry: Entry) -> bool {
    match ledger.binary_search_by(|(held, _)| held.cmp(purpose)) {
        Ok(place) => {
            ledger[place].1 = ledger[place].1.merged(&entry);
            false
        }
        Err(place) => {
            ledger.insert(place, (purpose.clone(), entry));
            true
        }
    }
}

/// An explicit word that a record says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word {
    pub purpose: Arc<str>,
    pub denied: bool,
    pub source: Arc<str>,
    pub none: Arc<str>,
}

impl Word {
    pub fn entry(&self, at_ms: i64, event: u64) -> Entry {
        Entry {
            at_ms,
            denied: self.denied,
            event,
            source: self.source.clone(),
            basis_at_ms: 0,
            basis: self.none.clone(),
        }
    }
}

pub type Words = [Word];

const WORDS_MAX: usize = 10_000;

/// The sets of words that were said, each once, so that leaves share them and compare them by address.
#[derive(Default)]
pub struct WordsTable {
    known: HashMap<Vec<Word>, Arc<Words>>,
}

impl WordsTable {
    pub fn of(&mut self, mut words: Vec<Word>) -> Arc<Words> {
        words.sort_by(|one, other| one.purpose.cmp(&other.purpose));
        if let Some(known) = self.known.get(&words) {
            return known.clone();
        }
        if self.known.len() >= WORDS_MAX {
            // Leaves keep what they have; the same words are another object then, and compared by what they say.
            self.known.clear();
        }
        let shared: Arc<Words> = words.clone().into();
        self.known.insert(words, shared.clone());
        shared
    }

    /// Return the words that make this ledger, if one record said all of it in so many words.
    pub fn as_said(&mut self, ledger: &[(Arc<str>, Entry)]) -> Option<(Arc<Words>, i64, u64)> {
        let (_, first) = ledger.first()?;
        let (at_ms, event) = (first.at_ms, first.event);
        let said = |entry: &Entry| {
            entry.at_ms == at_ms
                && entry.event == event
                && !entry.source.is_empty()
                && entry.basis.is_empty()
                && entry.basis_at_ms == 0
        };
        if at_ms < 0 || !ledger.iter().all(|(_, entry)| said(entry)) {
            return None;
        }
        let words = ledger
            .iter()
            .map(|(purpose, entry)| Word {
                purpose: purpose.clone(),
                denied: entry.denied,
                source: entry.source.clone(),
                none: entry.basis.clone(),
            })
            .collect();
        Some((self.of(words), at_ms, event))
    }
}

/// A record's evidence, as it stands in the record.
pub struct Evidence {
    pub unknown: bool,
    pub granted: Vec<(Arc<str>, Arc<str>)>,
    pub denied: Vec<(Arc<str>, Arc<str>)>,
}

impl Evidence {
    /// Read `[source, granted, denied, regime, origins]`; each purpose with what decided it.
    pub fn parse(raw: &[u8], texts: &mut Texts) -> Known<Evidence> {
        let reader = &mut Reader::new(raw);
        let count = reader.array()?;
        if !(1..=5).contains(&count) {
            return Err(Unknown);
        }
        let source = texts.of(reader.str()?);
        let mut lists = [Vec::new(), Vec::new()];
        for list in lists.iter_mut().take(count.saturating_sub(1)) {
            for _ in 0..reader.array()? {
                list.push(texts.of(reader.str()?));
            }
        }
        let mut origins = Vec::new();
        if count > 3 {
            reader.str()?;
        }
        if count > 4 {
            for _ in 0..reader.array()? {
                if reader.array()? != 2 {
                    return Err(Unknown);
                }
                origins.push((texts.of(reader.str()?), texts.of(reader.str()?)));
            }
        }
        reader.done()?;
        let named = |purpose: Arc<str>| {
            let found = origins.iter().find(|(held, _)| *held == purpose);
            let origin = found.map_or(&source, |(_, origin)| origin).clone();
            (purpose, origin)
        };
        let [granted, denied] = lists;
        Ok(Evidence {
            unknown: &*source == "unknown",
            granted: granted.into_iter().map(&named).collect(),
            denied: denied.into_iter().map(&named).collect(),
        })
    }
}
