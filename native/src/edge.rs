//! Edges as registers, and when a leaf would learn something from one; see `core/identity/edges.py`.

use std::sync::Arc;

use crate::msgpack::{self, Known, Reader, Unknown};

const CLAIMS_MAX: usize = 64;
const ALIAS: &str = "alias";
const DEVICE_TYPES: [&str; 2] = ["anonymous_id", "claimed_user_id"];

pub type Side = [u8; 16];

#[derive(Clone, Debug)]
pub struct Edge {
    pub a_type: Arc<str>,
    pub a: Side,
    pub b_type: Arc<str>,
    pub b: Side,
    pub at_ms: i64,
    pub event: u64,
    pub rule: Arc<str>,
    pub verified: bool,
    pub joined: bool,
    pub seen_ms: i64,
    pub cut_ms: i64,
}

/// The texts that many leaves share; as many as `core/leaf.py` keeps, the others are each their own.
#[derive(Default)]
pub struct Texts {
    known: std::collections::HashSet<Arc<str>>,
    /// Those asked for last: a look at a few is faster than a hash.
    recent: Vec<Arc<str>>,
}

const RECENT: usize = 12;

impl Texts {
    pub fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.recent.iter().find(|held| ***held == *text) {
            return known.clone();
        }
        if let Some(known) = self.known.get(text) {
            if self.recent.len() >= RECENT {
                self.recent.remove(0);
            }
            self.recent.push(known.clone());
            return known.clone();
        }
        let new: Arc<str> = text.into();
        if self.known.len() < 1_000 {
            self.known.insert(new.clone());
        }
        new
    }
}

impl Edge {
    pub fn read(reader: &mut Reader<'_>, texts: &mut Texts) -> Known<Edge> {
        let count = reader.array()?;
        if !(8..=11).contains(&count) {
            return Err(Unknown);
        }
        Ok(Edge {
            a_type: texts.of(reader.str()?),
            a: reader.leaf()?,
            b_type: texts.of(reader.str()?),
            b: reader.leaf()?,
            at_ms: reader.i64()?,
            event: reader.u64()?,
            rule: texts.of(reader.str()?),
            verified: reader.bool()?,
            joined: if count > 8 { reader.bool()? } else { true },
            seen_ms: if count > 9 { reader.i64()? } else { 0 },
            cut_ms: if count > 10 { reader.i64()? } else { 0 },
        })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(0x9b);
        msgpack::put_str(out, &self.a_type);
        msgpack::put_bin(out, &self.a);
        msgpack::put_str(out, &self.b_type);
        msgpack::put_bin(out, &self.b);
        msgpack::put_int(out, self.at_ms);
        msgpack::put_uint(out, self.event);
        msgpack::put_str(out, &self.rule);
        msgpack::put_bool(out, self.verified);
        msgpack::put_bool(out, self.joined);
        msgpack::put_int(out, self.seen_ms);
        msgpack::put_int(out, self.cut_ms);
    }

    pub fn key(&self) -> (&Side, &Side) {
        (&self.a, &self.b)
    }

    fn as_register(&self) -> Edge {
        if self.seen_ms != 0 || self.cut_ms != 0 {
            return self.clone();
        }
        let (seen_ms, cut_ms) = if self.joined { (self.at_ms, 0) } else { (0, self.at_ms) };
        Edge { seen_ms, cut_ms, ..self.clone() }
    }

    fn provenance(&self) -> (bool, bool, i64, u64, &str, &Side) {
        (self.seen_ms == 0, &*self.rule != ALIAS, self.at_ms, self.event, &self.rule, &self.a)
    }

    /// Whether a statement can change nothing of a register but when it was seen last.
    fn settles(&self, edge: &Edge) -> bool {
        edge.joined
            && self.joined
            && self.cut_ms == 0
            && edge.cut_ms == 0
            && edge.at_ms > self.at_ms
            && (edge.rule == self.rule || &*edge.rule != ALIAS)
            && self.verified >= edge.verified
            && edge.seen_ms == 0
    }
}

fn merged(one: &Edge, other: &Edge) -> Edge {
    if one.verified != other.verified {
        return if one.verified { one } else { other }.as_register();
    }
    let (one, other) = (one.as_register(), other.as_register());
    let seen_ms = one.seen_ms.max(other.seen_ms);
    let cut_ms = one.cut_ms.max(other.cut_ms);
    let told = if other.provenance() < one.provenance() { other } else { one };
    if told.seen_ms == seen_ms && told.cut_ms == cut_ms {
        return told;
    }
    Edge { joined: seen_ms > cut_ms, seen_ms, cut_ms, ..told }
}

/// A leaf's edges, ascending by their two sides.
#[derive(Default)]
pub struct Edges {
    pub all: Vec<Edge>,
}

impl Edges {
    fn find(&self, a: &Side, b: &Side) -> Result<usize, usize> {
        self.all.binary_search_by(|held| held.key().cmp(&(a, b)))
    }

    /// Take a statement that can tell no more than that a pair was seen again; False if it may tell more.
    pub fn seen_again(&mut self, raw: &[u8]) -> bool {
        self.sees_again(raw).unwrap_or(false)
    }

    fn sees_again(&mut self, raw: &[u8]) -> Known<bool> {
        let reader = &mut Reader::new(raw);
        if reader.array()? != 11 {
            return Ok(false);
        }
        reader.str()?;
        let a = reader.leaf()?;
        reader.str()?;
        let b = reader.leaf()?;
        let Ok(place) = self.find(&a, &b) else { return Ok(false) };
        let standing = &mut self.all[place];
        let at_ms = reader.i64()?;
        reader.u64()?;
        let rule = reader.str()?;
        let verified = reader.bool()?;
        let stated = reader.bool()? && reader.i64()? == 0 && reader.i64()? == 0;
        // As `Edge::settles`.
        let settled = stated
            && standing.joined
            && standing.cut_ms == 0
            && at_ms > standing.at_ms
            && (*rule == *standing.rule || rule != ALIAS)
            && standing.verified >= verified;
        if settled && at_ms > standing.seen_ms && verified == standing.verified {
            standing.seen_ms = at_ms;
        }
        Ok(settled)
    }

    /// Merge a statement or a register; return whether there is one more.
    pub fn fold(&mut self, edge: &Edge) -> bool {
        match self.find(&edge.a, &edge.b) {
            Ok(place) => {
                let standing = &mut self.all[place];
                if !standing.settles(edge) {
                    *standing = merged(standing, edge);
                } else if edge.at_ms > standing.seen_ms && edge.verified == standing.verified {
                    standing.seen_ms = edge.at_ms;
                    standing.cut_ms = 0;
                    standing.joined = true;
                }
                false
            }
            Err(place) => {
                if self.all.is_empty() {
                    self.all.reserve_exact(1);
                }
                self.all.insert(place, edge.as_register());
                !is_device(&edge.a_type) || !self.evicts(&edge.b)
            }
        }
    }

    fn evicts(&mut self, claimed: &Side) -> bool {
        let mut met = 0;
        let before = self.all.len();
        self.all.retain(|held| {
            if held.b != *claimed || !is_device(&held.a_type) {
                return true;
            }
            met += 1;
            met <= CLAIMS_MAX || held.verified
        });
        self.all.len() < before
    }

    pub fn would_change(&self, edge: &Edge) -> bool {
        let standing = self.find(&edge.a, &edge.b).ok().map(|place| &self.all[place]);
        if standing.is_some_and(|standing| standing.settles(edge)) {
            return false;
        }
        let reverse = self.find(&edge.b, &edge.a).ok().map(|place| &self.all[place]);
        let standing = match (standing, reverse.filter(|reverse| reverse.verified)) {
            (Some(standing), Some(reverse)) => merged(standing, reverse),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => return true,
        };
        let after = merged(&standing, edge);
        if standing.verified && !edge.verified {
            return false;
        }
        after.verified != standing.verified
            || after.joined != standing.joined
            || after.cut_ms != standing.cut_ms
            || after.provenance() != standing.provenance()
    }
}

fn is_device(id_type: &str) -> bool {
    DEVICE_TYPES.contains(&id_type)
}
